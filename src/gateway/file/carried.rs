//! Routes that are as they were in the configuration before, which need not be read and checked again.

use std::sync::Arc;

use figment::value::{Dict, Value};

use crate::gateway::settings::Settings;
use crate::http::file::Known;
use crate::http::route;

/// The configuration before, and what is written now.
#[derive(Debug)]
pub(super) struct Carried<'a> {
    before: &'a Settings,
    written_before: &'a Dict,
    written: &'a Dict,
}

impl<'a> Carried<'a> {
    /// `None` if what routes inherit or may refer to is not what it was: then each of them is read again.
    pub(super) fn new(before: &'a Settings, written: &'a Value, known: &Known) -> Option<Self> {
        let written_before = &*before.configuration.values;
        let same = written_before.find_ref("defaults") == written.find_ref("defaults")
            && before.checked.known == *known;
        let routes = |written: &'a Value| written.find_ref("routes").and_then(Value::as_dict);
        let (written_before, written) = (routes(written_before)?, routes(written)?);
        same.then_some(Self { before, written_before, written })
    }

    /// The route of this name as it was used before, if it says what it said then, and its check looked at nothing but
    /// that.
    pub(super) fn route(&self, name: &str) -> Option<&'a Arc<route::Settings>> {
        let checked = &self.before.checked;
        let same = self.written.get(name)? == self.written_before.get(name)?;
        if !same || checked.looked.contains(name) {
            return None;
        }
        let place = self.before.routes.binary_search_by(|route| (*route.name).cmp(name)).ok()?;
        self.before.routes.get(place)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::gateway::Settings;
    use crate::gateway::file::{Sources, load, load_after};

    const BEFORE: &str = "
listeners.public.address = '127.0.0.1:0'
upstreams.shop.endpoints = ['http://127.0.0.1:9001']
upstreams.mes.endpoints = ['http://127.0.0.1:9002']
rate_limits.some = { requests = 10, per = '1s' }
[defaults.route]
timeouts.request = '5s'
[routes.answer]
match.path = '/answer'
respond = { status = 200 }
[routes.order]
match = { path = '/orders/{id}', methods = ['GET'] }
upstream = 'shop'
attributes = { 'order.id' = { path = 'id' } }
rate_limit = 'some'
[routes.shop]
match.path = '/shop/{*rest}'
upstream = 'shop'
";

    fn sources(text: &str) -> Sources {
        Sources { files: vec![("routes.toml".into(), text.to_owned())], ..Sources::default() }
    }

    fn before(text: &str) -> Settings {
        load(&sources(text)).unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// The routes that are the very ones of before.
    fn carried(before: &Settings, now: &Settings) -> Vec<String> {
        let known = |name: &str| before.routes.iter().find(|route| *route.name == *name);
        let same = now
            .routes
            .iter()
            .filter(|route| known(&route.name).is_some_and(|known| Arc::ptr_eq(known, route)));
        same.map(|route| route.name.to_string()).collect()
    }

    #[test]
    fn a_route_is_carried_over_while_all_that_its_check_goes_by_is_as_it_was() {
        let settings = before(BEFORE);
        for (from, to, expected) in [
            ("", "", &["answer", "order", "shop"][..]),
            ("127.0.0.1:9001", "127.0.0.1:9003", &["answer", "order", "shop"]),
            ("/shop/{*rest}", "/store/{*rest}", &["answer", "order"]),
            ("[routes.answer]", "[routes.answers]", &["order", "shop"]),
            ("'order.id' = { path = 'id' }", "'order.number' = { path = 'id' }", &["answer", "shop"]),
            // what is inherited, and what may be named
            ("timeouts.request = '5s'", "timeouts.request = '6s'", &[]),
            ("[defaults.route]\ntimeouts.request = '5s'", "", &[]),
            ("upstreams.mes", "upstreams.factory", &[]),
            ("rate_limits.some", "rate_limits.few = { requests = 1, per = '1s' }\nrate_limits.some", &[]),
        ] {
            let sources = sources(&BEFORE.replacen(from, to, 1));
            let now = load_after(&sources, &settings).unwrap_or_else(|problems| panic!("{problems}"));
            assert_eq!(carried(&settings, &now), expected, "{from} → {to}");
            let anew = load(&sources).expect("as after the others");
            assert_eq!(format!("{:?}", now.routes), format!("{:?}", anew.routes), "{from} → {to}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_alike_whatever_was_before() {
        let settings = before(BEFORE);
        for (from, to) in [
            // of one route, of two, of all
            ("path = 'id'", "path = 'number'"),
            ("'/answer'", "'/shop/{*more}'"),
            ("'/shop/{*rest}'", "'/orders/{number}'\nmatch.methods = ['GET']"),
            ("'/answer'", "'/orders/{id}.json'\n[routes.other]\nmatch.path = '/orders/v{id}'"),
            ("upstreams.shop", "upstreams.store"),
            ("rate_limits.some", "rate_limits.few"),
            ("per = '1s'", "per = '1s', key = 'identity'"),
            ("timeouts.request = '5s'", "timeouts.request = 5"),
            ("timeouts.request = '5s'", "upstream = 'nowhere'"),
            ("[routes.shop]", "[routes.Shop]\nmatch.pth = 3\n[routes.shop]"),
            ("[routes.shop]", "[routes.shop]\nunknown = 1"),
            ("[routes.shop]", "[routes.shop"),
            ("[defaults.route]", "workers = 'many'\n[defaults.route]"),
        ] {
            let sources = sources(&BEFORE.replacen(from, to, 1));
            let anew = load(&sources).expect_err(to);
            assert_eq!(load_after(&sources, &settings).expect_err(to), anew, "{from} → {to}");
        }
    }

    #[test]
    fn a_route_that_names_a_file_is_read_again_though_it_says_the_same() {
        let directory = tempfile::tempdir().expect("a directory");
        let page = directory.path().join("page.html");
        std::fs::write(&page, "one").expect("written");
        let text = BEFORE.replace("[routes.shop]", "[routes.shop]\nerror_page.html_file = 'page.html'");
        let sources = Sources { directory: directory.path().to_owned(), ..sources(&text) };
        let settings = load(&sources).unwrap_or_else(|problems| panic!("{problems}"));
        std::fs::write(&page, "two").expect("written");
        let now = load_after(&sources, &settings).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(carried(&settings, &now), ["answer", "order"]);
        assert!(format!("{:?}", now.routes) != format!("{:?}", settings.routes), "the page is the new one");
        std::fs::remove_file(&page).expect("removed");
        let gone = load_after(&sources, &now).expect_err("the file is gone").to_string();
        assert!(gone.contains("routes.shop.error_page.html_file"), "{gone}");
    }
}
