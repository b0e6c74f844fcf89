//! Writes the inputs that every target begins with: `seeds DIR` makes a folder for each target.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(dir) = std::env::args().nth(1) else {
        eprintln!("usage: seeds DIR");
        return ExitCode::from(2);
    };
    match write(Path::new(&dir)) {
        Ok(count) => {
            eprintln!("{count} inputs in {dir}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cannot write to {dir}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(dir: &Path) -> std::io::Result<usize> {
    let mut count = 0;
    for target in mangrove_fuzz::targets() {
        let folder = dir.join(target.name);
        fs::create_dir_all(&folder)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(folder.join(format!("seed-{number:03}")), seed)?;
            count += 1;
        }
    }
    Ok(count)
}
