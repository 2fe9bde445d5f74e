"""The options of the clients of object stores, as `obstore` and snix's `object_store` name them: those that an address may have."""

from __future__ import annotations

from collections.abc import Mapping


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


PREFIXES: Mapping[str, tuple[str, ...]] = {"s3": ("aws_",), "gs": ("google_",), "az": ("azure_storage_", "azure_")}
"""What may stand before the names of options, by the scheme of an address, without `objectstore+`."""
OF_NIX = _names("scheme profile")
"""Options of S3 that Nix has, and `obstore` has not."""
STORE_OPTIONS: Mapping[str, frozenset[str]] = {
    "s3": OF_NIX
    | _names(
        "access_key_id secret_access_key session_token default_region region endpoint endpoint_url skip_signature imdsv1_fallback "
        "metadata_endpoint unsigned_payload checksum_algorithm container_credentials_relative_uri "
        "container_credentials_full_uri container_authorization_token_file web_identity_token_file role_arn role_session_name "
        "virtual_hosted_style_request s3_express request_payer server_side_encryption sse_kms_key_id sse_bucket_key_enabled "
        "sse_customer_key_base64 conditional_put disable_bulk_delete disable_tagging"
    ),
    "gs": _names("service_account service_account_key application_credentials base_url bearer_token skip_signature"),
    "az": _names(
        "account_name account_key client_id client_secret credential_type tenant_id authority_host sas_key token use_emulator "
        "endpoint msi_endpoint object_id msi_resource_id federated_token_file use_azure_cli skip_signature disable_tagging "
        "use_fabric_endpoint"
    ),
}
"""By the scheme of an address. Which bucket it is stands in the address itself."""
CLIENT_OPTIONS = _names(
    "allow_http allow_invalid_certificates connect_timeout http1_only http2_only http2_keep_alive_interval "
    "http2_keep_alive_timeout pool_idle_timeout pool_max_idle_per_host proxy_url proxy_excludes randomize_addresses read_timeout "
    "timeout user_agent"
)
"""Those of every client over HTTP."""


def option_name(scheme: str, given: str) -> str:
    """The name of an option as it is listed here: with underscores, and without the provider's name before it."""
    name = given.replace("-", "_").lower()
    for prefix in PREFIXES.get(scheme, ()):
        name = name.removeprefix(prefix)
    return name
