//! JSON schemas of the types that are written as a text or a number.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{Code, FunctionName, InstanceId, Millis, Rate, VersionId};

macro_rules! plain {
    ($($name:ident: $schema:tt;)*) => {$(
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

plain! {
    FunctionName: {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_-]{0,62}$"};
    VersionId: {"type": "integer", "minimum": 0, "description": "the number of a revision"};
    InstanceId: {"type": "string", "pattern": "^i-[0-9]+-[0-9]+-[0-9]+$"};
    Code: {"type": "string", "pattern": "^KW-[0-9]{4}$"};
    Millis: {"type": "string", "description": "a duration such as 30s"};
    Rate: {"type": "string", "description": "a rate such as 10/s"};
}
