//! A file of resources: read within its budgets, every fault with a place inside the file, never a value of a variable.
#![no_main]

use libfuzzer_sys::fuzz_target;

const SECRET: &str = "s3cr3t-of-a-variable";

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let variables = |name: &str| (name == "SECRET").then(|| SECRET.to_owned());
    // YAML 1.2 breaks lines at a carriage return too.
    let lines = 1 + text.matches(['\n', '\r']).count();
    match tidegate_resources::parse("fuzz.yaml", text, &variables) {
        Ok(resources) => {
            for subscription in &resources.subscriptions {
                assert!(!subscription.topics.is_empty(), "a subscription without topics was let through");
                assert!(subscription.delivery.max_in_flight > 0);
                assert!(!subscription.sink.to_string().contains(SECRET) || text.contains(SECRET));
            }
        }
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty(), "refused without a reason");
            for diagnostic in diagnostics {
                let place = diagnostic.place.expect("a fault of a text has a place");
                assert!((1..=lines).contains(&place.line), "line {} of {lines}: {diagnostic}", place.line);
                assert!(!diagnostic.to_string().contains(SECRET) || text.contains(SECRET), "{diagnostic}");
            }
        }
    }
});
