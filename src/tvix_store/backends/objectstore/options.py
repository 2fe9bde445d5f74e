"""The options of the clients of object stores, as `obstore` and snix's `object_store` name them: those that an address may have."""

from __future__ import annotations

from collections.abc import Mapping


def _with_prefix(prefix: str, names: str) -> frozenset[str]:
    """The names, each also with a prefix."""
    return frozenset(f"{before}{name}" for before in ("", f"{prefix}_") for name in names.split())


STORE_OPTIONS: Mapping[str, frozenset[str]] = {
    "s3": _with_prefix(
        "aws",
        "access_key_id secret_access_key session_token default_region region endpoint endpoint_url skip_signature imdsv1_fallback "
        "metadata_endpoint unsigned_payload checksum_algorithm container_credentials_relative_uri "
        "container_credentials_full_uri container_authorization_token_file web_identity_token_file role_arn role_session_name "
        "sts_endpoint virtual_hosted_style_request s3_express request_payer server_side_encryption sse_kms_key_id "
        "sse_bucket_key_enabled sse_customer_key_base64 conditional_put disable_bulk_delete disable_tagging",
    )
    | {"scheme", "profile"},
    "gs": _with_prefix(
        "google", "service_account service_account_key application_credentials base_url bearer_token skip_signature"
    ),
    "az": _with_prefix(
        "azure",
        "account_name account_key client_id client_secret credential_type tenant_id authority_host sas_key token use_emulator "
        "endpoint msi_endpoint object_id msi_resource_id federated_token_file use_azure_cli skip_signature disable_tagging "
        "use_fabric_endpoint",
    ),
}
"""By the scheme of an address, without `objectstore+`. Which bucket it is stands in the address itself."""
CLIENT_OPTIONS = frozenset(
    {
        *("allow_http", "allow_invalid_certificates", "connect_timeout", "http1_only", "http2_only", "http2_keep_alive_interval"),
        *("http2_keep_alive_timeout", "pool_idle_timeout", "pool_max_idle_per_host", "proxy_url", "proxy_ca_certificate"),
        *("proxy_excludes", "randomize_addresses", "read_timeout", "root_certificate", "timeout", "user_agent"),
    }
)
"""Those of every client over HTTP."""
