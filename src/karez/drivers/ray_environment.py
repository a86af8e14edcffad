"""The environment that every Ray process of a cloud needs. Imports no Ray."""

from pathlib import Path


def ray_environment(token_file: Path, *, loopback: bool = True) -> dict[str, str]:
    """Build the environment that every Ray process of a cloud must have.

    Health checks: 1 s period, 3 s limit, 4 misses; a cut-off node ends itself after about 13 s.
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 is what keeps Ray's listeners on loopback on Linux.
    Source: measured with Ray 2.60 on hosts in network namespaces, docs/decisions/0003.
    """
    env = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_health_check_initial_delay_ms": "1000",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "3000",
        "RAY_health_check_failure_threshold": "4",
        "RAY_grpc_client_keepalive_time_ms": "3000",
        "RAY_grpc_client_keepalive_timeout_ms": "3000",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "8",
        "RAY_EXPERIMENTAL_NOSET_ASCEND_RT_VISIBLE_DEVICES": "1",
        "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",
    }
    if loopback:
        env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    return env
