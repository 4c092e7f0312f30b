//! The codes by which clients of Function Compute know errors. Source: the shared reference on the FC 3.0 API, section 3.

use crate::Code;
use crate::code;

/// The vendor's code for one of ours.
pub fn of(own: Code) -> &'static str {
    match own {
        code::FUNCTION_NOT_FOUND | code::FUNCTION_REMOVED | code::ROUTE_UNKNOWN_FUNCTION => "FunctionNotFound",
        code::VERSION_NOT_FOUND => "VersionNotFound",
        code::ALIAS_NOT_FOUND => "AliasNotFound",
        code::TRIGGER_NOT_FOUND => "TriggerNotFound",
        code::TRIGGER_EXISTS => "TriggerAlreadyExists",
        code::FUNCTION_EXISTS | code::FUNCTION_NAME_CASE => "FunctionAlreadyExists",
        code::ALIAS_EXISTS => "AliasAlreadyExists",
        code::LAYER_NOT_FOUND => "LayerNotFound",
        code::DOMAIN_NOT_FOUND => "DomainNameNotFound",
        code::DOMAIN_EXISTS => "DomainNameAlreadyExists",
        code::TASK_NOT_FOUND => "AsyncTaskNotFound",
        code::TASK_CONFIG_MISSING => "AsyncConfigNotFound",
        code::TASK_CONFLICT => "AsyncTaskAlreadyExists",
        code::CODE_ARCHIVE => "InvalidArgument",
        code::ACCESS_KEY_UNKNOWN => "InvalidAccessKeyID",
        code::SIGNATURE_MISMATCH => "SignatureNotMatch",
        code::SIGNATURE_HEADER => "MissingRequiredHeader",
        _ => match own.status() {
            400 => "InvalidArgument",
            401 | 403 => "AccessDenied",
            404 | 405 => "PathNotSupported",
            409 => "ResourceConflict",
            412 => "PreconditionFailed",
            413 => "EntityTooLarge",
            429 => "ResourceExhausted",
            503 => "ServiceUnavailable",
            _ => "InternalServerError",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_of_the_vendor() {
        for entry in code::ALL {
            assert!(of(entry.code).bytes().all(|byte| byte.is_ascii_alphanumeric()), "{}", entry.code);
        }
        assert_eq!(of(code::FUNCTION_NOT_FOUND), "FunctionNotFound");
        assert_eq!(of(code::STORE_FULL), "InternalServerError");
        assert_eq!(of(code::ROLE_TOO_LOW), "AccessDenied");
    }
}
