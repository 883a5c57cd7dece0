//! Path templates as the router takes them: their shape, how specific it is, the names of their parameters.

/// The template with its parameters renamed by position, so that templates that differ only in names meet;
/// a prefix template stands for its bare prefix, too: `/shop/{*rest}` for `/shop` and `/shop/`. With each,
/// whether it is what was written.
pub fn shapes(template: &str) -> Vec<(String, bool)> {
    let mut shape = String::with_capacity(template.len());
    let mut rest = template;
    let mut count = 0;
    while let Some((before, after)) = rest.split_once('{') {
        shape.push_str(before);
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        let star = if name.starts_with('*') { "*" } else { "" };
        shape.extend(["{", star, "p", &count.to_string(), "}"]);
        count += 1;
        rest = after;
    }
    shape.push_str(rest);
    let mut shapes = Vec::with_capacity(3);
    if let Some((prefix, _)) = shape.rsplit_once("/{*") {
        shapes.push((format!("{prefix}/"), false));
        if !prefix.is_empty() {
            shapes.push((prefix.to_owned(), false));
        }
    }
    shapes.push((shape, true));
    shapes
}

/// Whether a template ends in a catch-all.
pub fn is_open(template: &str) -> bool {
    template.contains("{*")
}

/// How specific each segment of a template is: a literal over one with a literal part over a parameter over a
/// catch-all.
pub fn kinds(template: &str) -> Vec<u8> {
    let kind = |segment: &str| match segment {
        segment if !segment.contains('{') => 3,
        segment if segment.starts_with("{*") => 0,
        segment if segment.starts_with('{') && segment.ends_with('}') => 1,
        _ => 2,
    };
    template.split('/').skip(1).map(kind).collect()
}

/// The names of a template's parameters, in order.
pub fn parameter_names(template: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = template;
    while let Some((_, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else { break };
        names.push(name.trim_start_matches('*'));
        rest = after;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_that_differ_only_in_names_have_one_shape() {
        let shape = |template| shapes(template).pop().map(|(shape, _)| shape);
        assert_eq!(shape("/a/{x}/{y}"), shape("/a/{order}/{line}"));
        assert_eq!(shapes("/shop/{*rest}").len(), 3);
        assert_eq!(shapes("/{*rest}").len(), 2);
        assert_eq!(parameter_names("/a/{x}/{*rest}"), ["x", "rest"]);
    }
}
