"""SettingsService: the settings of a store that its clients must follow."""

from __future__ import annotations

from tvix_store.protocol.dialects import SETTINGS_SERVICE
from tvix_store.protocol.settings import StoreSettings, encode_settings
from tvix_store.rpc.method import Call, Method, Unary


def settings_methods(settings: StoreSettings) -> dict[str, Method]:
    """The call of SettingsService by its path."""
    answer = encode_settings(settings)

    async def get(_message: bytes, _call: Call) -> bytes:
        return answer

    return {f"/{SETTINGS_SERVICE}/Get": Unary(get)}
