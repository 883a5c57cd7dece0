//! What has a name and a state: carried over by a reload while its settings stay equal.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Components by their names, each with the settings it was built from.
#[derive(Debug)]
pub struct Kept<S, T>(BTreeMap<Box<str>, (S, Arc<T>)>);

impl<S: PartialEq + Clone, T> Kept<S, T> {
    /// One component for each of these settings. What `previous` has by the same name and equal settings is the
    /// same thing as before, with its state. Of the others, `build` is given what bore the name before, to take over
    /// what it can.
    pub fn new<'a>(
        settings: impl IntoIterator<Item = (&'a str, &'a S)>,
        previous: Option<&Self>,
        build: impl Fn(&S, Option<(&S, &T)>) -> T,
    ) -> Self
    where
        S: 'a,
    {
        let carry = |(name, settings): (&'a str, &'a S)| {
            let before = previous.and_then(|previous| previous.0.get(name));
            let component = match before {
                Some((equal, component)) if equal == settings => Arc::clone(component),
                Some((other, component)) => Arc::new(build(settings, Some((other, component)))),
                None => Arc::new(build(settings, None)),
            };
            (name.into(), (settings.clone(), component))
        };
        Self(settings.into_iter().map(carry).collect())
    }

    /// The component of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<T>> {
        self.0.get(name).map(|(_, component)| component)
    }

    /// Whether the component of this name is the very one that the others have.
    pub fn same(&self, name: &str, others: &Self) -> bool {
        let both = self.get(name).zip(others.get(name));
        both.is_some_and(|(one, other)| Arc::ptr_eq(one, other))
    }

    /// Every component with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<T>)> {
        self.0.iter().map(|(name, (_, component))| (&**name, component))
    }
}

#[cfg(test)]
mod tests {
    use super::Kept;

    #[test]
    fn what_has_equal_settings_by_the_same_name_is_the_same_thing() {
        let build = |settings: &u32, before: Option<(&u32, &(u32, Option<u32>))>| {
            (*settings, before.map(|(before, _)| *before))
        };
        let first = Kept::new([("a", &1), ("b", &2), ("c", &3)], None, build);
        let second = Kept::new([("a", &1), ("b", &20), ("d", &3)], Some(&first), build);
        let same = |name| {
            std::ptr::eq(&raw const **first.get(name).unwrap(), &raw const **second.get(name).unwrap())
        };
        assert!(same("a") && !same("b"));
        assert_eq!(second.get("b").map(|b| **b), Some((20, Some(2))), "built with what bore its name before");
        assert_eq!(second.get("d").map(|d| **d), Some((3, None)), "a name is part of what is equal");
        assert!(second.get("c").is_none());
        assert_eq!(second.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b", "d"]);
    }
}
