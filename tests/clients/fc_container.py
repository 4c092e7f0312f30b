"""A custom container on a slice of a card, by the official Python SDK. Arguments: address, access-key id, secret, image, program."""

import json
import sys
import time

from alibabacloud_fc20230330 import models as m
from alibabacloud_fc20230330.client import Client
from alibabacloud_tea_openapi.utils_models import Config
from darabonba.runtime import RuntimeOptions

address, access_id, secret, image, program = sys.argv[1:6]
client = Client(Config(access_key_id=access_id, access_key_secret=secret, protocol="http", endpoint=address))

container = m.CustomContainerConfig(image=image, port=9000, entrypoint=[program])
made = client.create_function(
    m.CreateFunctionRequest(
        body=m.CreateFunctionInput(
            function_name="counted",
            runtime="custom-container",
            handler="none",
            cpu=0.5,
            memory_size=512,
            disk_size=512,
            timeout=600,
            instance_concurrency=1,
            custom_container_config=container,
            gpu_config=m.GPUConfig(gpu_memory_size=8192, gpu_type="fc.gpu.tesla.1"),
            environment_variables={"FCGPU_RUNTIME_SHMSIZE": "134217728"},
        )
    )
).body
assert made.custom_container_config.image == image, made
assert made.gpu_config.gpu_memory_size == 8192, made
trigger = json.dumps({"authType": "anonymous", "methods": ["GET", "POST"]})
client.create_trigger(
    "counted",
    m.CreateTriggerRequest(
        body=m.CreateTriggerInput(trigger_name="http", trigger_type="http", trigger_config=trigger, qualifier="LATEST")
    ),
)
client.put_provision_config(
    "counted", m.PutProvisionConfigRequest(qualifier="LATEST", body=m.PutProvisionConfigInput(default_target=1))
)
for _ in range(600):
    found = client.get_provision_config("counted", m.GetProvisionConfigRequest(qualifier="LATEST")).body
    if found.current == 1:
        break
    time.sleep(0.1)
else:
    raise AssertionError(found)
client.put_provision_config(
    "counted", m.PutProvisionConfigRequest(qualifier="LATEST", body=m.PutProvisionConfigInput(default_target=0))
)
