//! The commands that measure, as a user runs them: short, for that they work and say what they
//! promise to say. No figure of them is judged here.

use real_tests::{RealCluster, block_on, run_program};
use serde_json::Value;

/// Runs a command that must succeed; returns the JSON that it prints.
fn json(arguments: &[&str]) -> Value {
    let done = run_program(&[arguments, &["--output", "json"]].concat(), b"");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said}\n{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_str(&said).expect("it is JSON")
}

/// Demands that something was measured, and that nothing failed.
#[track_caller]
fn assert_measured(figures: &Value) {
    for name in ["per_second", "p50_ms", "p99_ms", "cpu_ms_per_1000"] {
        assert!(figures[name].as_f64() > Some(0.0), "no {name}: {figures}");
    }
    assert_eq!(figures["errors"], 0, "{figures}");
}

#[test]
fn bench_tells_of_writes_and_reads() {
    block_on(async {
        let cluster = RealCluster::start(3).await;
        let addresses = cluster.addresses().join(",");
        let mut arguments = vec!["bench", "--cluster", &addresses, "--fill", "--reads", "0.5"];
        arguments.extend(
            "--requests 2000 --warm-up 0s --key-count 500 --connections 8 --keys zipfian"
                .split(' '),
        );
        let told = json(&arguments);
        let [writes, reads] = ["writes", "reads"].map(|kind| told[kind]["count"].as_u64());
        assert_eq!(writes.zip(reads).map(|(writes, reads)| writes + reads), Some(2_000), "{told}");
        assert_eq!(told["errors"], serde_json::json!({}), "{told}");
        let cells = cluster.client().get("key:000000000499").await.expect("it answers");
        assert!(cells.is_some(), "the last key was filled");
    });
}

#[test]
fn compare_tells_of_every_mode_and_writes_a_page() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let in_it = |name: &str| directory.path().join(name).display().to_string();
    let (data, page) = (in_it("data"), in_it("page.html"));
    let mut arguments = vec!["compare", "--data", &data, "--page", &page];
    arguments.extend("--rounds 1 --seconds 1 --faults 1 --fill 1000 --key-count 1000".split(' '));
    let told = json(&arguments);
    let columns = told["columns"].as_array().expect("there are columns");
    assert_eq!(columns.len(), 3, "primary-backup, masterless at QUORUM and at ONE: {told}");
    for column in columns {
        for kind in ["sets", "gets", "deep_sets", "lone_sets"] {
            assert_measured(&column[kind]);
        }
        assert_eq!(column["fault"]["gaps_ms"].as_array().map(Vec::len), Some(1), "{told}");
    }
    assert!(std::fs::read_to_string(&page).is_ok_and(|page| page.contains("masterless, one")));
}

#[test]
fn growth_tells_of_every_size_and_writes_a_plot() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let in_it = |name: &str| directory.path().join(name).display().to_string();
    let (data, page) = (in_it("data"), in_it("page.html"));
    let mut arguments = vec!["growth", "--data", &data, "--page", &page, "--sizes", "0,20000"];
    arguments.extend("--rounds 1 --seconds 1 --key-count 1000".split(' '));
    let told = json(&arguments);
    let curves = told["curves"].as_array().expect("there are curves");
    let modes: Vec<_> = curves.iter().map(|curve| curve["mode"].as_str()).collect();
    assert_eq!(modes, [Some("primary-backup"), Some("masterless")], "{told}");
    for curve in curves {
        let points = curve["points"].as_array().expect("there are points");
        let cells: Vec<_> = points.iter().map(|point| point["cells"].as_u64()).collect();
        assert_eq!(cells, [Some(0), Some(20_000)], "{told}");
        for point in points {
            assert_measured(&point["sets"]);
            assert_measured(&point["gets"]);
        }
    }
    let page = std::fs::read_to_string(&page).expect("the page was written");
    assert_eq!(page.matches("<polyline").count(), 4, "two modes, writes and reads");
}
