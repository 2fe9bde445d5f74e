"""Checks of a path info's claims: content address, signatures, references."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from tvix_store.concurrency.background_hash import BackgroundHash
from tvix_store.errors import InvalidError
from tvix_store.model import nixbase32
from tvix_store.model.content_address import ContentAddress, Method
from tvix_store.model.hash_modulo import HashModulo, ModuloHashes
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import PathInfo
from tvix_store.model.signature import PublicKey
from tvix_store.model.store_path import STORE_DIR, StorePath
from tvix_store.operations.nars.render import render_nar
from tvix_store.operations.trees.walk import read_contents
from tvix_store.services.store import Store


async def proves_content_address(store: Store, path_info: PathInfo) -> bool:
    """Whether the path follows from its content, and so needs no signature. False where no content address is claimed.

    `path_info.nar` is taken for true: the caller has compared it with the content, or has it from a place where that was done.
    Content is read in bounded memory.

    Raises:
        InvalidError: the content address that is claimed does not hold.
        ExhaustedError: the content refers to itself too often.
        NotFoundError, CorruptError: the content cannot be read.
    """
    ca = path_info.ca
    if ca is None:
        return False
    path = path_info.store_path
    self_reference = path in path_info.references
    check_follows(path_info, store.store_dir)
    if ca.method is not Method.NAR and not (isinstance(path_info.node, FileNode) and not path_info.node.executable):
        # Nix makes no others. If it took them, one address would stand for two contents.
        raise InvalidError(f"path info of {path}: content addressed by {ca.method.value} is a file that is not executable")
    if not self_reference and ca == ContentAddress(Method.NAR, NixHash("sha256", path_info.nar.sha256)):
        return True
    hashes = await _content_hashes(store, path_info, ca)
    if self_reference and not hashes.occurrences:
        raise InvalidError(f"path info of {path}: it is among its own references, but its content does not name it")
    # Without positions less is proven: zeros may stand for the name, and the name for zeros. Where the path does not even say that
    # it refers to itself, zeros in anybody's content could be made its name.
    if ca.hash != hashes.with_positions and not (self_reference and ca.hash == hashes.without):
        true = f"{ca.method.value}{hashes.with_positions}"
        raise InvalidError(f"path info of {path}: its content address is {ca}, but the content's is {true}")
    return True


def check_follows(path_info: PathInfo | NarInfo, store_dir: str = STORE_DIR) -> None:
    """Check that the path follows from its content address and its references, where it claims one.

    Raises:
        InvalidError: it does not.
    """
    ca, path = path_info.ca, path_info.store_path
    if ca is None:
        return
    others = [reference for reference in path_info.references if reference != path]
    try:
        follows = ca.store_path(path.name, others, store_dir, self_reference=len(others) < len(path_info.references))
    except InvalidError as error:
        raise InvalidError(f"path info of {path}: {error}") from None
    if follows != path:
        raise InvalidError(f"path info of {path}: by its content address {ca} and its references, the path is {follows}")


def check_signatures(path_info: PathInfo | NarInfo, trusted: Sequence[PublicKey], store_dir: str = STORE_DIR) -> int:
    """How many of the signatures are by trusted keys, and good. Signatures by other keys cannot be judged.

    Raises:
        InvalidError: a signature bears the name of a trusted key, and is not that key's, or not of this path info.
    """
    names = {key.name for key in trusted}
    signatures = [signature for signature in path_info.signatures if signature.name in names]
    message = path_info.fingerprint(store_dir) if signatures else b""
    for signature in signatures:
        # More than one key may have a name.
        if not any(key.verifies(signature, message) for key in trusted):
            raise InvalidError(f"path info of {path_info.store_path}: bad signature by {signature.name}")
    return len(signatures)


async def missing_references(store: Store, path_info: PathInfo) -> list[StorePath]:
    """The references that the store neither has nor could fetch, in order; a path may refer to itself. Nothing is fetched."""

    others = [reference for reference in path_info.references if reference != path_info.store_path]
    existing = await store.path_infos.existing([reference.output_hash for reference in others])
    return [reference for reference in others if existing.get(reference.output_hash) != reference]


async def _content_hashes(store: Store, path_info: PathInfo, ca: ContentAddress) -> ModuloHashes:
    """The hashes of the content that the method names, with the path's own name left out."""
    pieces: AsyncIterator[bytes]
    if ca.method is Method.NAR:
        pieces = render_nar(store.blobs, store.directories.tree(path_info.node))
    else:
        assert isinstance(path_info.node, FileNode)
        pieces = read_contents(store.blobs, path_info.node)
    own = nixbase32.encode(path_info.store_path.output_hash).encode()
    content_hash = HashModulo(ca.hash.algorithm, own)
    hashing = BackgroundHash(content_hash)
    async for piece in pieces:
        await hashing.update(piece)
    await hashing.finish()
    return content_hash.finish()
