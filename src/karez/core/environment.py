"""Every `KAREZ_*` name of the environment: the contract between karez, its processes and yours.

Each constant says what it means, who sets it, who reads it, and its default.
docs/environment.md is the same as a table. Every setting of a cloud has a name here too: see
`of_setting`.
"""

from typing import Final

PREFIX: Final = "KAREZ_"
"""Prefix of every name."""


def of_setting(field: str) -> str:
    """Name the variable of a field of `core.settings.Settings`: `lease_s` is KAREZ_LEASE_S."""
    return PREFIX + field.upper()


# Addresses and the key of a client
URL: Final = "KAREZ_URL"
"""Address of the control API, such as `http://10.0.0.1:7070`.

Set by: the user. Read by: `karez`, `karez.Client`. Default: what `cloud.json` in the state folder
says, else `http://127.0.0.1:7070`."""
KEY: Final = "KAREZ_KEY"
"""API key.

Set by: the user; control, for jobs that call models. Read by: `karez`, `karez.Client`. Default: the
state folder's `admin.key`, if the cloud runs there."""
GATEWAY: Final = "KAREZ_GATEWAY"
"""Address of the gateway, with `/v1`.

Set by: the user; control, for jobs that call models. Read by: `karez`, `karez.Client`. Default:
what `cloud.json` says, else `http://127.0.0.1:7080/v1`."""
HOME: Final = "KAREZ_HOME"
"""State folder of a cloud; also a setting.

Set by: the user, `karez up --home`. Read by: `karezd`, `karez`, `karez.Client`. Default:
`~/.karez`."""

# Settings of a cloud that command-line options set
HOST: Final = "KAREZ_HOST"
"""Address that control, gateway and Ray listen on.

Set by: the user, `karez up --host`. Read by: `karezd`. Default: `127.0.0.1`."""
PORT: Final = "KAREZ_PORT"
"""Port of the control API.

Set by: the user, `karez up --port`. Read by: `karezd`. Default: `7070`."""
GATEWAY_PORT: Final = "KAREZ_GATEWAY_PORT"
"""Port of the gateway.

Set by: the user, `karez up --gateway-port`. Read by: `karezd`. Default: `7080`."""
RAY_PORT: Final = "KAREZ_RAY_PORT"
"""Port of the Ray head. Set by: the user, `karez demo`. Read by: `karezd`. Default: `7079`."""
RAY_ADDRESS: Final = "KAREZ_RAY_ADDRESS"
"""Address of an existing Ray cluster; empty starts one.

Set by: the user, `karez up --ray`. Read by: `karezd`. Default: empty."""
DATABASE: Final = "KAREZ_DATABASE"
"""SQLAlchemy URL of the store; empty is SQLite in the state folder.

Set by: the user, `karez up --database`. Read by: `karezd`. Default: empty."""
CPUS: Final = "KAREZ_CPUS"
"""CPU devices that the node offers; 0 is all.

Set by: the user, `karez up --cpus`. Read by: `karezd`. Default: `0`."""
EMULATE: Final = "KAREZ_EMULATE"
"""Devices that the node emulates on its CPUs, such as `npu=4`.

Set by: the user, `karez up --emulate`. Read by: `karezd`. Default: empty: none."""

# A machine that joins
JOIN_URL: Final = "KAREZ_JOIN_URL"
"""Address of the control API of the cloud.

Set by: `karez join`. Read by: `karezd node`. Default: none; must be set."""
JOIN_TOKEN: Final = "KAREZ_JOIN_TOKEN"
"""The token to join; removed before anything else is started.

Set by: the user, `karez join`. Read by: `karez join`, `karezd node`. Default: empty."""
JOIN_ADDRESS: Final = "KAREZ_JOIN_ADDRESS"
"""This host's address on the cloud's network.

Set by: `karez join`. Read by: `karezd node`. Default: none; must be set."""
JOIN_NAME: Final = "KAREZ_JOIN_NAME"
"""Name of the node; empty is the host name.

Set by: `karez join`. Read by: `karezd node`. Default: none; must be set."""
NODE_HOME: Final = "KAREZ_NODE_HOME"
"""Folder for the node's files.

Set by: `karez join`, `karezd`. Read by: the steward's Ray actor. Default: `node` in the state
folder."""
NODE_CPUS: Final = "KAREZ_NODE_CPUS"
"""CPU devices that the node offers; 0 is all.

Set by: `karez join`. Read by: the steward's Ray actor. Default: the setting `cpus`."""
NODE_EMULATE: Final = "KAREZ_NODE_EMULATE"
"""Devices that the node emulates on its CPUs, such as `npu=4`.

Set by: `karez join`. Read by: the steward's Ray actor. Default: the setting `emulate`."""

# Every process of a job or service
OUT: Final = "KAREZ_OUT"
"""Folder for results: each folder or file in it becomes an artifact.

Set by: the steward. Read by: the program, `training.session`. Default: `out` in a session outside a
cloud."""
SWEEP_TRIAL: Final = "KAREZ_SWEEP_TRIAL"
"""Which trial of which sweep a job is: `KEY/NUMBER/RUNG`.

Set by: `karez sweeps run`. Read by: `karez sweeps`. Default: none."""
CHECKPOINT_DIR: Final = "KAREZ_CHECKPOINT_DIR"
"""Folder for the program's own checkpoints: a later attempt of the job finds them there.

Set by: the steward. Read by: the program. Default: none."""
INPUTS: Final = "KAREZ_INPUTS"
"""Folder of the inputs: one folder for each, by the name in the job.

Set by: the steward. Read by: the program, `training.session`. Default: `inputs` in a session
outside a cloud."""
CODE: Final = "KAREZ_CODE"
"""Folder of the job's code; the program starts in it.

Set by: the steward. Read by: the program. Default: none."""
CACHE: Final = "KAREZ_CACHE"
"""Cache folder of this node that outlives jobs; its files may be deleted at any time.

Set by: the steward. Read by: the recipes. Default: none."""
SETTINGS: Final = "KAREZ_SETTINGS"
"""The job's `settings`, as a JSON object.

Set by: control. Read by: the recipes, the program. Default: `{}`."""
JOB: Final = "KAREZ_JOB"
"""Id of the job or service.

Set by: the steward. Read by: the program, `training.session`. Default: empty."""
ARRAY: Final = "KAREZ_ARRAY"
"""Id of the array that the job is of.

Set by: control. Read by: the program. Default: absent outside arrays."""
ARRAY_INDEX: Final = "KAREZ_ARRAY_INDEX"
"""The job's index in its array.

Set by: control. Read by: the program. Default: absent outside arrays."""
NODE: Final = "KAREZ_NODE"
"""Name of the node; for `karezd`, a setting: the name of this host's node.

Set by: the steward; the user. Read by: the program; `karezd`. Default: the host name."""
ADDRESS: Final = "KAREZ_ADDRESS"
"""The node's address on the cloud's network.

Set by: the steward. Read by: the program, `training.session`, the engine. Default: `127.0.0.1`."""
DEVICE: Final = "KAREZ_DEVICE"
"""Kind of the devices granted: `cpu`, `gpu` or `npu`.

Set by: the steward. Read by: the program, `training.session`. Default: `cpu`."""
DEVICE_MILLI: Final = "KAREZ_DEVICE_MILLI"
"""Thousandths of each device granted: 1000 is a whole one, less a share of one.

Set by: the steward. Read by: `training.session`. Default: `1000`."""
ROLE: Final = "KAREZ_ROLE"
"""Name of the process's role, in a job with roles.

Set by: control. Read by: the program. Default: absent for workers."""
ROLE_RANK: Final = "KAREZ_ROLE_RANK"
"""Index of the process in its role, from 0.

Set by: control. Read by: the program. Default: absent for workers."""
ROLE_SIZE: Final = "KAREZ_ROLE_SIZE"
"""Number of processes in the role.

Set by: control. Read by: the program. Default: absent for workers."""
ROLES: Final = "KAREZ_ROLES"
"""Addresses of each role's processes, as a JSON object of lists.

Set by: control. Read by: the program. Default: `{}`."""
POOLED_MEMORY: Final = "KAREZ_POOLED_MEMORY"
"""Memory of other nodes that the job holds: a JSON list of `keeper` (host:port) and `bytes`.

Set by: control. Read by: `training.session`. Default: `[]`."""
INPUT_IDS: Final = "KAREZ_INPUT_IDS"
"""Artifact id of each input, as a JSON object.

Set by: control. Read by: the program. Default: `{}`."""

# Between a node and the ranks of a session; internal
KEY_NAME: Final = "KAREZ_KEY_NAME"
"""Key by which the steward identifies the process.

Set by: the steward. Read by: `training.session`, the engine. Default: empty."""
EPOCH: Final = "KAREZ_EPOCH"
"""Epoch of the allocation that the process belongs to.

Set by: the steward. Read by: `training.session`. Default: `0`."""
GENERATION: Final = "KAREZ_GENERATION"
"""Number of the gang's generation, for its rendezvous store.

Set by: the job controller. Read by: the rendezvous store. Default: none; must be set."""
RESTORE: Final = "KAREZ_RESTORE"
"""Folder of the stored checkpoint to restore.

Set by: the steward. Read by: `training.session`. Default: empty."""
STEWARD: Final = "KAREZ_STEWARD"
"""Path of the steward's socket.

Set by: the steward. Read by: `training.session`, the engine. Default: empty: outside a cloud."""
SNAPSHOT_FILE: Final = "KAREZ_SNAPSHOT_FILE"
"""Path of the rank's two snapshots in shared memory.

Set by: the steward. Read by: `training.session`. Default: empty."""
REPLICA_SERVER: Final = "KAREZ_REPLICA_SERVER"
"""Address (host:port) of this node's replica server.

Set by: the steward. Read by: `training.session`. Default: empty."""
REPLICA_SERVERS: Final = "KAREZ_REPLICA_SERVERS"
"""Addresses of the gang's replica servers by rank, separated by commas.

Set by: control. Read by: `training.session`. Default: empty."""
REPLICA_TOKEN: Final = "KAREZ_REPLICA_TOKEN"
"""Token for the replica server; for that server itself, the secret that jobs' tokens derive from.

Set by: the steward. Read by: `training.session`, the replica server. Default: empty."""

PROCESS_TOKEN: Final = "KAREZ_PROCESS_TOKEN"
"""What a process shows the steward to be taken for itself; each has one of its own.

Set by: the steward. Read by: `training.session`, the engine. Default: empty."""

ACCELERATORS: Final = "KAREZ_ACCELERATORS"
"""Kinds of accelerators of this node, separated by commas; no program may open one before it forks.

Set by: the steward. Read by: the preload of fork servers. Default: empty."""

# The engine of a service; internal
ENGINE: Final = "KAREZ_ENGINE"
"""What the engine serves and how, as JSON of a core.engines.EngineLaunch.

Set by: control. Read by: the engine. Default: none; must be set."""
ENGINE_KEY: Final = "KAREZ_ENGINE_KEY"
"""Key that the gateway sends to the engine.

Set by: control. Read by: the engine. Default: none; must be set."""

# The emulated NPU
EMUNPU: Final = "KAREZ_EMUNPU"
"""`1` gives torch a device `npu` that computes on the CPU.

Set by: the user, `karez migrate verify`, the steward. Read by: torch's loading of backends.
Default: off."""
EMUNPU_MEMORY: Final = "KAREZ_EMUNPU_MEMORY"
"""Bytes of the device's memory; a program that allocates more gets torch's OutOfMemoryError.

Set by: the user, the steward. Read by: the emulated NPU. Default: 32 GiB."""
EMUNPU_RANDOM: Final = "KAREZ_EMUNPU_RANDOM"
"""`own` gives the device a random generator of its own, as real devices have.

Set by: the user, the steward, `karez migrate verify` (`shared`). Read by: the emulated NPU.
Default: the CPU's generator, so that a program draws the same numbers on both."""
EMUNPU_OPS: Final = "KAREZ_EMUNPU_OPS"
"""File that lists the only operators that exist, one a line.

Set by: the user, `karez migrate verify --kernels`. Read by: the emulated NPU. Default: all
operators."""
EMUNPU_CHIP: Final = "KAREZ_EMUNPU_CHIP"
"""Chip whose documented limits apply: `A2`, `A3` or `950DT`.

Set by: the user, `karez migrate verify --chip`. Read by: the emulated NPU. Default: no limits."""
EMUNPU_NO_DTYPES: Final = "KAREZ_EMUNPU_NO_DTYPES"
"""Types that the device refuses, separated by commas, such as `float64`.

Set by: the user. Read by: the emulated NPU. Default: empty."""
EMUNPU_FAULTS: Final = "KAREZ_EMUNPU_FAULTS"
"""Operators to spoil with a relative error, such as `aten::tanh:1e-3`, separated by commas.

Set by: the user, `karez migrate verify`. Read by: the emulated NPU. Default: empty."""

# The recorder of `karez migrate verify`; internal
VERIFY_STEPS: Final = "KAREZ_VERIFY_STEPS"
"""Number of steps for which every module is recorded.

Set by: `karez migrate verify`. Read by: the recorder. Default: `3`."""
VERIFY_THREADS: Final = "KAREZ_VERIFY_THREADS"
"""Number of threads that torch uses.

Set by: `karez migrate verify`. Read by: the recorder. Default: torch's own number."""
VERIFY_SEED: Final = "KAREZ_VERIFY_SEED"
"""Seed of all generators. Set by: `karez migrate verify`. Read by: the recorder. Default: `0`."""
VERIFY_INSIDE: Final = "KAREZ_VERIFY_INSIDE"
"""Module whose operators are recorded one by one.

Set by: `karez migrate verify`. Read by: the recorder. Default: empty."""
VERIFY_FAULT: Final = "KAREZ_VERIFY_FAULT"
"""Module to spoil, as `NAME=RELATIVE_ERROR`.

Set by: `karez migrate verify`. Read by: the recorder. Default: empty."""
VERIFY_MOST: Final = "KAREZ_VERIFY_MOST"
"""Number of steps after which the script is ended; 0: never.

Set by: `karez migrate verify`. Read by: the recorder. Default: `0`."""
