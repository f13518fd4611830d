//! The move of everything to another backbone. What it means is the backbone's own business; protocols find it here.

pub use tidegate_backbone::migrate::{MigrateError, Migration, Phase, Status};
