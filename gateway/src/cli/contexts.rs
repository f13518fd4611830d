//! Contexts: named gateways with what it takes to speak to them, in a file of the user's own.
//!
//! The file is `$TIDEGATE_CONFIG`, else `$XDG_CONFIG_HOME/tidegate/contexts.json`, else
//! `~/.config/tidegate/contexts.json`. It is a JSON object, readable by its owner alone:
//!
//! ```json
//! {
//!   "current": "staging",
//!   "contexts": {
//!     "staging": {"server": "https://mesh.example.com", "token": {"variable": "STAGING_TOKEN"}}
//!   }
//! }
//! ```
//!
//! A token is a reference (`variable`, or the `file` that holds it) or a `value` in this file; it is never printed.
//!
//! What a command speaks to is decided in this order: `--server`; a context that `--context` names; `TIDEGATE_SERVER`; a
//! context that `TIDEGATE_CONTEXT` names; the current context; `http://127.0.0.1:3500`. The token of a context goes to the
//! server of that context only.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::arguments::{Globals, Server, Token};

/// The contexts that there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contexts {
    /// The one that is used where nothing else is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) current: Option<String>,
    /// By name.
    #[serde(default)]
    pub(super) contexts: BTreeMap<String, Entry>,
}

/// One context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// The gateway.
    #[serde(with = "as_text")]
    pub(super) server: Server,
    /// What is shown to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<TokenSource>,
}

/// Where a token is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum TokenSource {
    /// In a variable of the process environment.
    Variable(String),
    /// In a file, whose first line it is.
    File(PathBuf),
    /// In the file of contexts.
    Value(String),
}

impl std::fmt::Debug for TokenSource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.told())
    }
}

impl TokenSource {
    /// Where it is, for people; never what it is.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Variable(name) => format!("in the variable {name}"),
            Self::File(path) => format!("in the file {}", path.display()),
            Self::Value(_) => "kept in the file of contexts".to_owned(),
        }
    }

    fn read(&self, variables: &dyn Fn(&str) -> Option<String>) -> Result<Token, String> {
        let text = match self {
            Self::Variable(name) => variables(name)
                .ok_or_else(|| format!("its token is in the variable {name}, which is not set; set it to the token"))?,
            Self::File(path) => std::fs::read_to_string(path).map_err(|error| {
                format!("its token is in the file {}, which cannot be read: {error}", path.display())
            })?,
            Self::Value(text) => text.clone(),
        };
        text.lines().next().unwrap_or_default().trim().parse().map_err(|error: String| format!("its token: {error}"))
    }
}

/// Text of a server in the file, with the reasons of [`Server`] where it is none.
mod as_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::Server;

    pub(super) fn serialize<S: Serializer>(server: &Server, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(server)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Server, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The file of contexts, and what it holds.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) path: PathBuf,
    pub(super) contexts: Contexts,
}

impl Store {
    /// Reads the file; one that is not there holds nothing. The error names the file, and the line where it has one.
    pub(super) fn open(path: PathBuf) -> Result<Self, String> {
        let shown = path.display();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(format!("{shown}: cannot be read: {error}")),
        };
        if text.trim().is_empty() {
            return Ok(Self { path, contexts: Contexts::default() });
        }
        let contexts: Contexts = serde_json::from_str(&text).map_err(|error| {
            // The library puts the place behind what is wrong; people read it first.
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            format!("{shown}:{}:{}: {what}", error.line(), error.column())
        })?;
        if let Some(current) = contexts.current.as_ref().filter(|current| !contexts.contexts.contains_key(*current)) {
            let line = text.lines().position(|line| line.contains("\"current\"")).map_or(1, |index| index + 1);
            let known = known(&contexts);
            return Err(format!("{shown}:{line}: the current context {current:?} is not among the contexts; {known}"));
        }
        let keeps_a_token = contexts.contexts.values().any(|entry| matches!(entry.token, Some(TokenSource::Value(_))));
        let mode = std::fs::metadata(&path).map_or(0, |metadata| metadata.permissions().mode());
        if keeps_a_token && mode & 0o077 != 0 {
            return Err(format!(
                "{shown}: holds a token and can be read by others (mode {:03o}); make it yours alone: chmod 600 {shown}",
                mode & 0o777
            ));
        }
        Ok(Self { path, contexts })
    }

    /// Writes the file anew, readable by its owner alone: beside its place and then renamed, so that it is never half.
    pub(super) fn write(&self) -> Result<(), String> {
        self.try_write().map_err(|error| format!("{}: cannot be written: {error}", self.path.display()))
    }

    fn try_write(&self) -> io::Result<()> {
        let folder =
            self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut beside = self.path.as_os_str().to_owned();
        beside.push(".new");
        // One that was left behind could be readable by others.
        let _ = std::fs::remove_file(&beside);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        serde_json::to_writer_pretty(&mut file, &self.contexts)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)
    }

    /// The context of that name.
    pub(super) fn entry(&self, name: &str) -> Result<&Entry, String> {
        self.contexts
            .contexts
            .get(name)
            .ok_or_else(|| format!("{}: there is no context {name:?}; {}", self.path.display(), known(&self.contexts)))
    }
}

fn known(contexts: &Contexts) -> String {
    let names: Vec<&str> = contexts.contexts.keys().map(String::as_str).collect();
    if names.is_empty() {
        "add one with: tidegate context add NAME URL".to_owned()
    } else {
        format!("there are: {}", names.join(", "))
    }
}

/// Where the file of contexts is.
pub(super) fn path(globals: &Globals, variables: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, String> {
    if let Some(path) = &globals.context_file {
        return Ok(path.clone());
    }
    let set = |name: &str| variables(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // The specification of the base directories says to leave a path that is not absolute out.
    let folder =
        set("XDG_CONFIG_HOME").filter(|path| path.is_absolute()).or_else(|| Some(set("HOME")?.join(".config")));
    let folder = folder.ok_or("neither HOME nor XDG_CONFIG_HOME is set; name the file with TIDEGATE_CONFIG")?;
    Ok(folder.join("tidegate/contexts.json"))
}

/// Decides what a command speaks to, in the order of the module's documentation. The file is read only where it has a
/// say.
pub(super) fn resolve(globals: &Globals, variables: &dyn Fn(&str) -> Option<String>) -> Result<Globals, String> {
    let explicit_context = globals.context.is_some() && !globals.from_environment.context;
    let server = globals.server.clone().filter(|_| !(globals.from_environment.server && explicit_context));
    let token = globals.token.clone().filter(|_| !(globals.from_environment.token && explicit_context));
    if server.is_some() {
        return Ok(Globals { server, token, ..globals.clone() });
    }
    let place = match path(globals, variables) {
        Ok(place) => place,
        Err(_) if globals.context.is_none() => return Ok(Globals { server: None, token, ..globals.clone() }),
        Err(reason) => return Err(reason),
    };
    let store = Store::open(place)?;
    let Some(name) = globals.context.clone().or_else(|| store.contexts.current.clone()) else {
        return Ok(Globals { server: None, token, ..globals.clone() });
    };
    let entry = store.entry(&name)?;
    let token = match (token, &entry.token) {
        (Some(token), _) => Some(token),
        (None, Some(source)) => {
            Some(source.read(variables).map_err(|reason| format!("the context {name:?}: {reason}"))?)
        }
        (None, None) => None,
    };
    Ok(Globals { server: Some(entry.server.clone()), token, ..globals.clone() })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Arguments;
    use crate::cli::arguments::FromEnvironment;

    const FILE: &str = r#"{
  "current": "staging",
  "contexts": {
    "staging": {"server": "https://staging.example.com", "token": {"variable": "STAGING_TOKEN"}},
    "local": {"server": "localhost:3501"}
  }
}"#;

    fn variables(name: &str) -> Option<String> {
        (name == "STAGING_TOKEN").then(|| "from-variable".to_owned())
    }

    fn store(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.json");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    /// What a command line comes to: the server, and the token where there is one.
    fn resolved(text: &str, line: &str, from_environment: FromEnvironment) -> Result<(String, Option<String>), String> {
        let (_folder, path) = store(text);
        let arguments = format!("tidegate --context-file {} {line} topics list", path.display());
        let mut globals = Arguments::try_parse_from(arguments.split_whitespace()).unwrap().globals;
        globals.from_environment = from_environment;
        let shown = format!("{}/", path.parent().unwrap().display());
        let resolved = resolve(&globals, &variables).map_err(|error| error.replace(&shown, ""))?;
        let token = resolved.token.as_ref().map(|token| token.authorization().to_str().unwrap().to_owned());
        Ok((resolved.server().to_string(), token))
    }

    #[test]
    fn flags_go_before_variables_before_the_context_before_the_default() {
        let none = FromEnvironment::default();
        let server = FromEnvironment { server: true, ..none };
        let context = FromEnvironment { context: true, ..none };
        let check = |line: &str, from, expected: &str, token: Option<&str>| {
            let expected = (expected.to_owned(), token.map(|token| format!("Bearer {token}")));
            assert_eq!(resolved(FILE, line, from), Ok(expected), "{line}");
        };
        check("", none, "https://staging.example.com", Some("from-variable"));
        check("--context local", none, "http://localhost:3501", None);
        check("--token t", none, "https://staging.example.com", Some("t"));
        // A context's token goes to that context's server only.
        check("--server http://flag", none, "http://flag", None);
        check("--server http://flag --context local", none, "http://flag", None);
        check("--server http://variable", server, "http://variable", None);
        check("--server http://variable --context local", server, "http://localhost:3501", None);
        check(
            "--server http://variable --context local",
            FromEnvironment { server: true, context: true, ..FromEnvironment::default() },
            "http://variable",
            None,
        );
        check("--context local", context, "http://localhost:3501", None);
        assert_eq!(resolved("", "", none).unwrap().0, Server::DEFAULT);
    }

    #[test]
    fn faults_name_the_file_and_the_line() {
        let fault = |text: &str, line: &str| resolved(text, line, FromEnvironment::default()).unwrap_err();
        assert_eq!(
            fault(FILE, "--context lokal"),
            "contexts.json: there is no context \"lokal\"; there are: local, staging"
        );
        let misspelt = FILE.replace("\"server\": \"localhost", "\"sever\": \"localhost");
        assert!(fault(&misspelt, "").starts_with("contexts.json:5:"), "{}", fault(&misspelt, ""));
        let wrong = FILE.replace("localhost:3501", "ftp://h");
        assert!(fault(&wrong, "").contains("contexts.json:5:") && fault(&wrong, "").contains("http://"));
        let dangling = FILE.replace("\"current\": \"staging\"", "\"current\": \"production\"");
        assert!(fault(&dangling, "").starts_with("contexts.json:2: the current context \"production\""));
        let unset = FILE.replace("STAGING_TOKEN", "OTHER_TOKEN");
        assert!(fault(&unset, "").contains("OTHER_TOKEN"), "{}", fault(&unset, ""));
        assert!(fault("", "--context x").contains("tidegate context add"));
    }

    #[test]
    fn the_file_is_its_owners_alone_and_a_token_in_one_that_is_not_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/contexts.json");
        let mut store = Store::open(path.clone()).unwrap();
        let token = Some(TokenSource::Value("hush".to_owned()));
        assert!(!format!("{token:?}").contains("hush"));
        store.contexts.contexts.insert("a".to_owned(), Entry { server: "h:1".parse().unwrap(), token });
        store.write().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Store::open(path.clone()).unwrap().contexts, store.contexts);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Store::open(path).unwrap_err();
        assert!(error.contains("chmod 600") && !error.contains("hush"), "{error}");
    }

    #[test]
    fn the_file_lies_where_the_base_directories_say() {
        let globals = Arguments::try_parse_from(["tidegate", "topics", "list"]).unwrap().globals;
        let of = |pairs: &'static [(&str, &str)]| {
            let find =
                move |name: &str| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            path(&globals, &find).map(|path| path.display().to_string())
        };
        assert_eq!(of(&[("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")]).unwrap(), "/x/tidegate/contexts.json");
        assert_eq!(of(&[("XDG_CONFIG_HOME", "x"), ("HOME", "/h")]).unwrap(), "/h/.config/tidegate/contexts.json");
        assert!(of(&[]).unwrap_err().contains("TIDEGATE_CONFIG"));
    }
}
