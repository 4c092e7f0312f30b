//! Stable error codes. Each has a page `docs/errors/<code>.md`: what happened, likely causes, what to run.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A stable error code, written `KW-1203`. Codes are never reused for another meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Code(pub u16);

/// One line of the table of codes.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The code.
    pub code: Code,
    /// What it means, in a few words.
    pub title: &'static str,
    /// The HTTP status it is answered with.
    pub status: u16,
}

macro_rules! codes {
    ($($number:literal $name:ident $status:literal $title:literal;)*) => {
        $(#[doc = $title] pub const $name: Code = Code($number);)*
        /// Every code there is, ascending.
        pub const ALL: &[Entry] = &[$(Entry { code: Code($number), title: $title, status: $status },)*];
    };
}

codes! {
    1001 MANIFEST_SYNTAX 400 "the manifest is not valid YAML";
    1002 MANIFEST_UNKNOWN_KEY 400 "the manifest has a key that does not exist";
    1003 MANIFEST_WRONG_TYPE 400 "a value in the manifest has the wrong type";
    1004 MANIFEST_BAD_VALUE 400 "a value in the manifest is out of range or has a wrong unit";
    1005 MANIFEST_TOO_LARGE 413 "the manifest is too large or too deeply nested";
    1006 MANIFEST_UNREADABLE 400 "the manifest cannot be found or read";
    1007 NOT_YET 501 "the manifest uses something this version cannot do yet";
    1008 MANIFEST_MISSING_KEY 400 "the manifest lacks a key that it needs";
    1009 MANIFEST_CONTRADICTION 400 "two values in the manifest contradict each other";
    1020 SCALING_INVALID 400 "a scaling policy is not valid";
    1021 SCALING_ADVICE 400 "a scaling setting does not match the measurements";
    1022 SCALING_NOT_MEASURED 400 "a scaling policy follows a metric that cannot be measured";
    1023 SCALING_SERVES_NOTHING 400 "nothing is provisioned and nothing is started on demand";
    1024 DISPLACES 400 "a new version starts only when the version before has ended";
    1025 PAUSE_ENDS_WORKERS 400 "the program ends its own workers after a pause";
    1026 TRACE_INVALID 400 "the trace cannot be read";
    1030 FILE_FORMAT 400 "the file is neither an s.yaml nor a template.yml";
    1031 FILE_NO_FUNCTION 400 "a resource of the file is no function";
    1032 FILE_VARIABLE 400 "a reference in the file has no value";
    1033 FILE_PLACEHOLDER 400 "the file has placeholders of a template";
    1034 FILE_RUNTIME 400 "the runtime is not run here";
    1035 FILE_CODE 400 "the code of a function cannot be read";
    1036 FILE_VALUE 400 "a value in the file cannot be used";
    1037 FILE_UNSUPPORTED 400 "the file asks for a feature that is not supported";
    1038 FILE_REFERENCE 400 "the file names something that does not exist";
    1039 FILE_UNKNOWN_KEY 400 "the file has a key that does not exist";
    1040 FILE_MISSING_KEY 400 "the file lacks a key that it needs";
    1041 BUDGET_INVALID 400 "the budget cannot be used";
    1042 REPLAY_DIFFERS 400 "the recording is not decided the same again";
    1043 DEVICE_NOT_ASKED_FOR 400 "the program uses the GPU driver and asks for no device";
    1044 GPU_NOT_ISOLATED 400 "nothing keeps an instance to its share of a device";
    1045 PROMISE_NOT_KEPT 400 "a function cannot be back as soon as it promises";
    1050 CODE_LIVE 400 "a version does not hold its code";
    1051 CODE_TOO_LARGE 413 "the folder of a function is too large to capture";
    1052 CODE_NOT_CAPTURED 400 "the folder of a function cannot be captured";
    1053 CODE_NOT_WRITABLE 400 "instances cannot write into their folder any more";
    1070 SHARE_INVALID 400 "the name or the folder of a share cannot be used";
    1071 MOUNT_TARGET 400 "nothing can be mounted at the path";
    1072 SHARE_UNKNOWN 404 "the project or the server has no share of this name";
    1073 INSTALL_PIN 400 "a dependency does not exist in this version for this interpreter";
    1074 INSTALL_FAILED 400 "a dependency cannot be installed";
    1075 FUNFILE 400 "a line of the Funfile cannot be carried out";
    1076 ROLE_MAP_INVALID 400 "a role cannot be mapped to the secret";
    1077 ROLE_UNMAPPED 404 "the role is not mapped";
    1080 USER_IMPOSSIBLE 400 "the server cannot run instances as this user";
    1081 USER_UNKNOWN 400 "the host has no user of this name";
    1082 USER_NOT_ALLOWED 403 "only an administrator names the user of a function";
    2001 ROUTE_UNKNOWN_FUNCTION 404 "there is no function of this name";
    2002 ROUTE_UNKNOWN_PATH 404 "the gateway has nothing at this path";
    2003 ROUTE_METHOD 405 "the function does not take this method";
    2004 QUEUE_FULL 429 "the function's queue is full";
    2005 QUEUE_TIMEOUT 504 "no instance became free in time";
    2006 FIRST_BYTE_TIMEOUT 504 "the instance did not answer in time";
    2007 BODY_IDLE_TIMEOUT 504 "the instance stopped sending in the middle of its answer";
    2008 TOTAL_TIMEOUT 504 "the request took longer than the function allows";
    2009 INSTANCE_UNREACHABLE 502 "the instance could not be reached";
    2010 INSTANCE_BROKE_OFF 502 "the instance broke off the connection before it answered";
    2011 BAD_REQUEST 400 "the request is not acceptable HTTP";
    2012 SHUTTING_DOWN 503 "the server is shutting down";
    2020 FRAMING 400 "it is ambiguous where the request ends";
    2021 HEAD_TOO_LARGE 431 "the request's head is too large";
    2022 TARGET_TOO_LONG 414 "the request's target is too long";
    2023 REQUEST_LATE 408 "the request did not come in time";
    2024 VERSION_UNKNOWN 505 "the request is of a version of HTTP that is not spoken here";
    2025 BODY_TOO_LARGE 413 "the request's body is larger than the gateway takes";
    2026 TOO_MANY_CONNECTIONS 503 "the gateway has as many connections as it takes";
    2027 MODEL_NOT_NAMED 400 "the request names no model";
    2028 MODEL_UNKNOWN 404 "no function serves a model of this name";
    2029 MODEL_SEARCH_FULL 503 "too much is being read to find out which models it is for";
    2030 HOST_UNKNOWN 403 "the server is not called by this name";
    2031 ORIGIN_REFUSED 403 "web pages of this origin may not call this";
    2032 JWT_REFUSED 401 "the token of the caller is not accepted";
    2033 DOMAIN_PATH 404 "the custom domain has no route for this path";
    3001 FUNCTION_NOT_FOUND 404 "there is no function of this name on the server";
    3002 INSTANCE_NOT_FOUND 404 "there is no instance of this id";
    3003 START_BACKOFF 503 "the function's instances failed to start and the next try is not due yet";
    3004 NO_CAPACITY 503 "the host has no room for an instance";
    3005 FUNCTION_REMOVED 410 "the function was removed while the request waited";
    3006 FUNCTION_NAME_CASE 409 "another function has the same name but for upper and lower case";
    3007 VERSION_NOT_FOUND 404 "the function has no such version";
    3008 CRASH_LOOP 503 "the program ends again and again soon after it is ready";
    3009 VERSION_REPLACED 409 "a newer version replaced this version before it served";
    3010 CORE_FAILED 503 "the server failed while it decided for the function, and recovered";
    3011 QUARANTINED 503 "the server failed twice within a minute for the function; the function is suspended";
    3020 NO_PROVISION 404 "nothing is provisioned for this version or alias";
    3021 VERSION_IN_USE 409 "the version is in use";
    3022 ALIAS_NOT_FOUND 404 "the function has no such alias";
    3023 ALIAS_INVALID 400 "the name or the targets of the alias cannot be used";
    3024 HOST_NAME_TAKEN 409 "two functions or qualifiers would have the same host name";
    3025 REVISION_NOT_READY 409 "the newest revision of the function did not become ready";
    3026 NOTHING_BEFORE 409 "nothing is known that served before";
    3027 TRIGGER_NOT_FOUND 404 "the function has no such trigger";
    3028 TRIGGER_EXISTS 409 "the function has a trigger of this name already";
    3029 FUNCTION_EXISTS 409 "there is a function of this name already";
    3030 ALIAS_EXISTS 409 "the function has an alias of this name already";
    3031 INVOCATION_DISABLED 403 "the function takes no invocations";
    3032 ROLLOUT_OPEN 409 "a rollout of the alias is under way";
    3033 NO_ROLLOUT 404 "no rollout of the alias is under way";
    3034 ROLLOUT_INVALID 400 "the plan of the rollout cannot be used";
    3035 ROLLOUT_ABORTED 409 "the rollout was aborted";
    3036 DEVICE_YIELDED 503 "the device that an instance needs is yielded";
    3037 EXEC_TOO_MANY 429 "as many exec sessions run as are allowed";
    3038 EXEC_REQUEST 400 "the request does not open an exec session";
    3039 EXEC_ENDED 409 "the exec session was ended";
    4001 COMMAND_NOT_FOUND 502 "the command does not exist";
    4002 COMMAND_NOT_EXECUTABLE 502 "the command cannot be executed";
    4003 EXITED_BEFORE_READY 502 "the program ended before it was ready";
    4004 NEVER_READY 504 "the program did not become ready in time";
    4005 WRONG_PORT 504 "the program listens on a different port than its assigned port";
    4006 INITIALIZE_FAILED 502 "the initialize hook failed";
    4007 INSTANCE_PORT_TAKEN 502 "another program holds the instance's port";
    4008 WORKING_DIRECTORY 502 "the working directory does not exist";
    4009 SPAWN_FAILED 502 "the operating system refused to start the program";
    4010 OUT_OF_MEMORY 502 "the program was killed at its memory limit";
    4011 GPU_DRIVER_MISSING 503 "there is no GPU driver that can be used";
    4012 GPU_CANNOT_FREEZE 503 "this driver or device cannot freeze processes";
    4013 GPU_CALL_FAILED 502 "a call of the GPU driver failed";
    4014 GPU_HELPER_LOST 503 "the GPU helper process hung or ended";
    4015 FREEZE_ABORTED 503 "the freeze was cancelled; the processes continue";
    4016 FREEZE_LOST 502 "a process was lost while it was frozen or woken";
    4017 WAKE_NO_MEMORY 503 "the device has no room to wake a process";
    4018 DEVICE_UNKNOWN 404 "there is no device of this name";
    4019 DEVICE_IN_USE 409 "the device is in use";
    4020 QUALIFICATION_FAILED 502 "the device did not pass its qualification";
    4021 ENGINE_UNAVAILABLE 503 "no container engine answers";
    4022 IMAGE_MISSING 502 "the container engine does not have the image";
    4023 IMAGE_PULL_FAILED 502 "the image cannot be pulled";
    4024 IMAGE_PLATFORM 502 "the image is for another architecture";
    4025 CONTAINER_REFUSED 502 "the container engine refused to start the container";
    4026 DEVICE_NOT_IN_CONTAINER 502 "a device of the instance is not in its container";
    4027 MOUNT_NOT_ALLOWED 400 "the folder may not be mounted into containers";
    4028 IMAGE_IN_USE 409 "the image is in use";
    4029 SECRET_MISSING 502 "an instance needs a secret that cannot be read";
    4030 CANARY_FAILED 502 "the program did not answer its canary as expected";
    4031 EXEC_COMMAND 400 "the command cannot be run in the instance";
    4032 EXEC_FAILED 502 "the command could not be started in the instance";
    4033 ENGINE_OFF 409 "containers are switched off on this server";
    4034 CODE_CHANGED 502 "a file that the version needs changed since it was deployed";
    4035 CODE_MISSING 502 "the files of the version are not there";
    4036 CODE_READ_ONLY 502 "the program writes into its folder, which is read-only";
    4037 DEVICE_TAKEN 503 "programs of others hold the memory of the device";
    4050 MOUNT_IMPOSSIBLE 409 "this host gives instances no mounts";
    4051 SHARE_MISSING 502 "the folder of a share is not there";
    4060 NO_POOL 409 "no pool can run the function";
    4061 IMAGE_NEEDED 409 "a version needs the image";
    5001 TASK_NOT_FOUND 404 "there is no task of this id";
    5002 TASK_CONFLICT 409 "the task id or idempotency key stands for another request";
    5003 TASKS_FULL 429 "too many tasks wait";
    5004 TASK_TOO_LARGE 413 "the task's payload is too large";
    5005 TASK_NOT_ACCEPTABLE 400 "the task is not acceptable";
    5006 TASK_CONFIG_INVALID 400 "the configuration of a function's tasks is not acceptable";
    5007 TASK_STATE 409 "the task is not in a state for this";
    5008 TASK_STALE 409 "another run of the task has taken over";
    5009 TASK_CONFIG_MISSING 404 "nothing is kept for the tasks of this function and qualifier";
    5010 TASK_AMBIGUOUS 409 "several tenants have a task of this id";
    6001 MODEL_NOT_FOUND 404 "there is no model at this path or of this name";
    6002 MODEL_UNREADABLE 500 "the model cannot be loaded";
    6003 MODEL_CARD_INVALID 500 "the model.json beside the model is not valid";
    6004 INPUT_SHAPE 400 "an input has the wrong shape";
    6005 INPUT_TYPE 400 "an input has the wrong type";
    6006 INPUT_UNREADABLE 400 "the input cannot be read";
    6007 INPUT_TOO_LARGE 413 "the input is too large";
    6008 INFERENCE_FAILED 500 "the model failed on this input";
    6009 INFERENCE_QUEUE_FULL 503 "too many requests wait for the model";
    6010 MODEL_RUNTIME_MISSING 500 "ONNX Runtime was asked for and cannot be used";
    6011 MODEL_SERVER_PATH 404 "the model server has nothing at this path";
    6012 MODEL_SERVER_METHOD 405 "the model server does not take this method at this path";
    6013 MODEL_SERVER_ADDRESS 500 "the model server cannot listen";
    6014 PRESET_BY_HAND 400 "the engine of this preset is installed by hand";
    6015 INSTALLER_MISSING 409 "the host has no installer for engines";
    6020 SHARE_COPY 409 "files cannot be copied to a share";
    6021 TEXT_NOT_SERVED 400 "the model takes no texts";
    6022 TEXT_TOO_LONG 400 "a text is longer than the model takes";
    6023 EMBEDDING_DIMENSIONS 400 "the model has no embeddings of this length";
    7001 KEY_MISSING 401 "a key is needed";
    7002 KEY_WRONG 401 "the key is not known";
    7003 API_BAD_REQUEST 400 "the API does not understand the request";
    7004 API_UNKNOWN_PATH 404 "the API has nothing at this path";
    7005 SERVER_UNREACHABLE 503 "no server answers";
    7006 API_METHOD 405 "the API does not take this method at this path";
    7007 COMMAND_INPUT 400 "a value on the command line cannot be used";
    7008 ROLE_TOO_LOW 403 "the key's role does not allow this";
    7009 KEY_OTHER_FUNCTION 403 "the key is not for this function";
    7010 KEY_EXPIRED 401 "the key has expired";
    7011 KEY_DISABLED 401 "the key is disabled";
    7012 KEY_RATE 429 "the key sends more requests than it may";
    7013 KEY_CONCURRENCY 429 "the key has as many requests in flight as it may";
    7014 KEY_NOT_FOUND 404 "there is no key of this name";
    7015 KEY_EXISTS 409 "there is a key of this name already";
    7016 KEY_LAST_ADMINISTRATOR 409 "the last usable administrator key must stay";
    7017 KEY_INVALID 400 "a setting of the key is not valid";
    7018 KEY_UNKNOWN_FUNCTION 404 "the key names a function that does not exist";
    7019 KEY_IS_SERVER 403 "the key can do what the server can";
    7020 SECRET_NOT_FOUND 404 "there is no secret of this name";
    7021 SECRET_INVALID 400 "the name or the value of the secret cannot be used";
    7022 SEAL_KEY_UNUSABLE 500 "the key that seals secrets cannot be used";
    7023 FC_SIGNATURE 403 "the signature of the request is not accepted";
    7024 FC_REFUSED 400 "the operation of Function Compute is not supported here";
    7025 CODE_ARCHIVE 400 "the code archive cannot be used";
    7026 CODE_UPLOADS 429 "too many uploads of code are open";
    7027 LAYER_NOT_FOUND 404 "there is no such layer";
    7028 LAYER_INVALID 400 "the layer cannot be used";
    7029 DOMAIN_NOT_FOUND 404 "there is no such custom domain";
    7030 DOMAIN_EXISTS 409 "the custom domain exists already";
    7031 DOMAIN_INVALID 400 "the custom domain cannot be used";
    7032 JWT_CONFIG 400 "the JWT authentication of a trigger cannot be used";
    7033 NO_BUDGET 404 "there is no such budget";
    7034 NO_RECORDING 404 "nothing is recorded of the function";
    7035 DESTINATION_REFUSED 403 "notifications do not go to this destination";
    7060 ACCESS_KEY_UNKNOWN 403 "the access-key id is not known";
    7061 SIGNATURE_MISMATCH 403 "the signature is not that of the request";
    7062 SIGNATURE_HEADER 400 "a header that a signed request needs is missing or cannot be read";
    7070 RESTORE_ADDS_KEYS 409 "the backup has keys that this server does not have";
    8001 DATA_DIRECTORY_IN_USE 409 "another server uses this data directory";
    8002 ADDRESS_TAKEN 409 "the address is taken by another program";
    8003 DATA_DIRECTORY_UNUSABLE 500 "the data directory cannot be used";
    8004 SCHEMA_NEWER 500 "the data directory was written by a newer version";
    8005 STORE_FAILED 500 "the store failed";
    8006 CONFIG_INVALID 400 "the configuration is not valid";
    8007 ADDRESS_NOT_LOOPBACK 400 "listening beyond loopback needs TLS or a named proxy in front";
    8008 SERVER_DID_NOT_START 500 "the server did not start";
    8009 CHECK_FAILED 500 "the self-check failed";
    8010 COMMAND_FAILED 500 "the command failed for a reason outside Kipwake";
    8011 STORE_FULL 507 "there is no room on the disk for the change";
    8012 STORE_NOT_DURABLE 503 "the disk failed to keep state and changes are refused";
    8013 BACKUP_EXISTS 409 "a file of this name exists already";
    8014 BACKUP_FILE 400 "the backup's file cannot be read or written";
    8015 BACKUP_DAMAGED 400 "the file is not a whole backup";
    8016 BACKUP_NEWER 400 "the backup was made by a newer version";
    8017 BACKUP_FOREIGN 409 "the backup was taken of another server";
    8018 DATA_DIRECTORY_NETWORK 500 "the data directory is on a network file system";
    8019 SERVICE_FAILED 500 "the service could not be installed or removed";
    8020 TLS_UNUSABLE 400 "the certificate or its key cannot be used";
    8021 JOB_UNKNOWN 404 "the function is no job";
    8022 JOB_NO_SCHEDULE 409 "the job has no schedule";
    8023 JOB_NOT_CALLED 405 "a job is run as a task and answers no calls";
    8024 VITAL_TASK_ENDED 500 "a part of the server ended that it cannot do without";
    8025 STALE 412 "the object was changed since it was read";
    8030 NOT_CONFIRMED 409 "the change was not confirmed";
    8031 ACTION_FAILED 500 "a command of the file failed";
    8032 ACTION_NOT_ALLOWED 409 "the file has commands that were not allowed";
    8033 PROVISION_LATE 504 "provisioned instances were not ready in time";
    9001 MODEL_SOURCE 400 "the text names no model";
    9002 MODEL_NOT_ON_HUB 404 "the hub has no such model";
    9003 MODEL_REVISION 404 "the model has no such revision";
    9004 MODEL_GATED 403 "the hub does not give the model to this caller";
    9005 HUB_UNREACHABLE 503 "the source of the model cannot be reached";
    9006 HUB_ANSWER 502 "the answer of the source cannot be used";
    9007 DOWNLOAD_DAMAGED 502 "a downloaded file is not the one that the hub lists";
    9008 DOWNLOAD_NO_ROOM 507 "the model does not fit on the disk";
    9009 MODEL_FILE_NAME 502 "the name of a file of the model cannot be used";
    9010 MODEL_NOT_CACHED 404 "the cache has no such model";
    9011 MODEL_IN_USE 409 "functions use the model";
    9012 PULL_NOT_FOUND 404 "there is no such pull";
    9013 PULL_CANCELLED 409 "the pull was cancelled";
    9014 MODEL_CACHE 500 "the model cache cannot be used";
    9020 PRESET_INVALID 400 "a preset cannot be used";
    9021 PRESET_UNKNOWN 404 "there is no such preset";
    9022 NO_PRESET 400 "no preset serves the model";
    9023 ENGINE_MISSING 409 "the engine that would serve the model is not installed";
    9024 ENGINE_INSTALL 500 "the engine could not be installed";
    9025 MODEL_NAME_TAKEN 409 "another function has this model name";
    9026 DEPLOYMENT_NOT_FOUND 404 "there is no such deployment of a model";
    9030 EJECT 409 "the app of a function cannot be ejected";
    9040 MODEL_MISSING 503 "the files of the model that an instance needs are not there yet";
    9041 MODEL_QUOTA 507 "the model does not fit into the quota of the cache";
    9042 MODEL_MOVED 409 "the source has another commit of the model";
    9043 MODEL_EVICTED 409 "the files of the model are not on the disk";
    9044 MODEL_REWRITE 400 "the body cannot be changed as the name of its model says";
    9045 MODEL_REWRITE_LIMIT 413 "the body is too large to be changed as the name of its model says";
    9046 MODEL_ADOPTION 400 "nothing of the folder can be adopted";
    9047 MODEL_ADOPTED 409 "the files of the model are another program's";
    9048 MODEL_BUCKET 400 "the bucket cannot be read";
}

impl Code {
    /// The table's line for this code. Every constant of this module has one.
    pub fn entry(self) -> Option<&'static Entry> {
        ALL.binary_search_by_key(&self, |entry| entry.code).ok().map(|index| &ALL[index])
    }

    /// The HTTP status it is answered with; 500 for a code this build does not know.
    pub fn status(self) -> u16 {
        self.entry().map_or(500, |entry| entry.status)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KW-{:04}", self.0)
    }
}

impl FromStr for Code {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.strip_prefix("KW-")
            .filter(|digits| digits.len() == 4)
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not an error code: they look like KW-1203"))
    }
}

impl TryFrom<String> for Code {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Code> for String {
    fn from(code: Code) -> Self {
        code.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_ascends_and_each_code_is_found() {
        assert!(ALL.windows(2).all(|pair| pair[0].code < pair[1].code));
        for entry in ALL {
            assert_eq!(entry.code.to_string().parse(), Ok(entry.code));
            assert_eq!(entry.code.status(), entry.status);
        }
    }
}
