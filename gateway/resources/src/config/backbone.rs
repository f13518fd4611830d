use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::nearest::nearest;

const SCHEMES: [&str; 7] = ["embedded", "nats", "tls+nats", "kafka", "kafka+ssl", "amqp", "amqps"];

/// What carries the events of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackboneUrl {
    /// The log inside this process, `embedded:PATH`.
    Embedded {
        /// The folder of its files.
        path: PathBuf,
    },
}

impl BackboneUrl {
    /// Reads a backbone URL. The error has the form `what; how to mend it` and never holds more of the URL than its
    /// scheme, because the rest may hold a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        const MEND: &str = "write for example `embedded:./data`";
        let Some((scheme, rest)) = url.split_once(':') else {
            return Err(format!("is no backbone URL; {MEND}"));
        };
        match scheme {
            "embedded" => match rest.strip_prefix("//").unwrap_or(rest) {
                "" => Err(format!("names no folder; {MEND}")),
                path => Ok(Self::Embedded { path: PathBuf::from(path) }),
            },
            scheme if SCHEMES.contains(&scheme) => Err(format!(
                "names the backbone `{scheme}`, which is not available in this version; use `embedded:PATH`"
            )),
            scheme => Err(match nearest(scheme, SCHEMES) {
                Some(near) => format!("has an unknown scheme; did you mean `{near}:`?"),
                None => format!("has an unknown scheme; {MEND}"),
            }),
        }
    }

    /// The folder of the embedded log.
    pub fn embedded_path(&self) -> Option<&Path> {
        match self {
            Self::Embedded { path } => Some(path),
        }
    }
}

impl FromStr for BackboneUrl {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        Self::parse(url)
    }
}

impl fmt::Display for BackboneUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded { path } => write!(formatter, "embedded:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backbone_urls() {
        for (url, path) in
            [("embedded:./data", "./data"), ("embedded:/var/lib/x", "/var/lib/x"), ("embedded:///var", "/var")]
        {
            let parsed = BackboneUrl::parse(url).unwrap();
            assert_eq!(parsed.embedded_path(), Some(Path::new(path)), "{url}");
            assert_eq!(BackboneUrl::parse(&parsed.to_string()), Ok(parsed));
        }
        for (url, what) in [
            ("", "is no backbone URL; "),
            ("./data", "is no backbone URL; "),
            ("embedded:", "names no folder; "),
            ("embeded:./data", "has an unknown scheme; did you mean `embedded:`?"),
            ("redis://h", "has an unknown scheme; "),
            ("nats://user:secret@h:4222", "names the backbone `nats`, which is not available"),
            ("tls+nats://h:4222", "names the backbone `tls+nats`, which is not available"),
            ("amqp://user:secret@h/v", "names the backbone `amqp`, which is not available"),
        ] {
            let error = BackboneUrl::parse(url).unwrap_err();
            assert!(error.starts_with(what), "{url}: {error}");
            assert!(!error.contains("secret"), "{url}: {error}");
        }
    }
}
