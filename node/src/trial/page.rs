//! What all pages for people have in common: one file that asks nothing of a network.

/// How a page looks, tables and pictures included.
///
/// Pictures are drawn on white; where the reader wants dark pages, their lightness is turned over.
const STYLE: &str = "\
:root{color-scheme:light dark;--text:#222;--page:#fff;--soft:#555;--line:#e3e3e3;--rule:#888;\
--head:#f3f6f4;--link:#1b6e53}
@media(prefers-color-scheme:dark){:root{--text:#dcdfe4;--page:#17191c;--soft:#a3a9b3;\
--line:#33373d;--rule:#777;--head:#22272a;--link:#6cc3a2}\
svg{filter:invert(.91) hue-rotate(180deg)}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--text);background:var(--page);\
max-width:1180px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.4rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:13px}
th,td{padding:.25rem .5rem;text-align:right;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left;white-space:nowrap}
thead th{border-bottom:2px solid var(--rule)}tr.head td{background:var(--head);font-weight:600}
@media(max-width:75rem){table{display:block;overflow-x:auto}}
svg{max-width:100%;height:auto;border:1px solid #e3e3e3;margin:.4rem 0}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(28rem,100%),1fr));gap:1rem}
.charts svg{margin:0}
.note{color:var(--soft)}a{color:var(--link)}";

/// Returns the page with a body under a title, which is also its heading.
pub fn page(title: &str, body: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{title}</title>\n<style>{STYLE}</style></head><body>\n\
         <h1>{title}</h1>\n{body}</body></html>\n"
    )
}

/// Returns a text as it is written in HTML and SVG, attributes included.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn title_cannot_leave_its_place() {
        let page = page("a <b> & \"c\"", "<p>body</p>\n");
        assert!(page.contains("<title>a &lt;b&gt; &amp; &quot;c&quot;</title>"), "{page}");
        assert!(page.contains("</h1>\n<p>body</p>\n</body>"), "{page}");
    }
}
