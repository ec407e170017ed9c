import { optionsOf } from '../../base/arguments.js'
import { argumentError, requireBoolean, requireString } from '../../base/check.js'
import { CheckpointError } from '../../base/errors.js'
import { type DType, deviceWord, dtypeFacts } from '../../tensor/dtype.js'
import { type Device, scope } from '../../tensor/index.js'
import { type ByteSource, quoted, withFile } from '../byte-source.js'
import { fileHost } from '../pickle/host.js'
import { finish, type PickleValue } from '../pickle/result.js'
import { readTorchStream } from './stream.js'
import { readTorchZip } from './zip.js'

export interface LoadTorchOptions {
  /** Device of the tensors, whatever device they were saved from. Default `'cpu'`. */
  device?: Device
  /** Convert floating-point tensors to this dtype; integers and booleans keep theirs. */
  dtype?: DType
  /**
   * Tensors to load: names, or a function of a name. A name is the keys from the root joined with dots, such as
   * `'encoder.weight'` in a state dict and `'model.encoder.weight'` in a checkpoint that has one under `model`. The others are
   * neither read nor returned (null in lists).
   */
  names?: readonly string[] | ((name: string) => boolean)
  /**
   * Map the file instead of reading it: pages are loaded when they are used, and changes stay in this process. For frozen
   * weights. CPU only; booleans and tensors that `dtype` converts are copied anyway.
   */
  mmap?: boolean
}

/**
 * Read a file of `torch.save` (`.pt`, `.pth`, `.bin`), in the current zip format or that of before torch 1.6. Only data is
 * read; no code in the file runs.
 *
 * A state dict becomes an object of tensors by name; a checkpoint becomes nested objects as {@link PickleValue} describes, with
 * `argparse.Namespace` as an object. Tensors that share a storage share it here, with their strides and offsets. Of each
 * storage only the used part is read, into native memory. As in torch, the checksums of storages are not verified.
 *
 * The type parameter is not checked.
 *
 * @throws CheckpointError that names the file and the byte or entry, for a file that is invalid or contains more than data: a
 *   whole nn.Module, TorchScript, quantized or sparse tensors
 */
export async function loadTorch<T = PickleValue>(path: string, options: LoadTorchOptions = {}): Promise<T> {
  requireString('loadTorch', 'path', path)
  const { device, dtype, names, mmap = false } = optionsOf(options, 'loadTorch', ['device', 'dtype', 'names', 'mmap'])
  requireBoolean('loadTorch', 'mmap', mmap)
  if (dtype !== undefined && dtypeFacts(dtype).kind !== 'float') {
    throw argumentError('loadTorch', 'dtype', 'a floating point dtype', dtype)
  }
  if (device !== undefined) deviceWord(device)
  const wanted = wantedNames(names)
  let value: PickleValue = null
  await withFile(path, CheckpointError, (source) =>
    scope(async () => {
      const root = await readTorch(source)
      const found = await finish(root, source.place, { encoding: 'utf-8', device, dtype, mmap, select: wanted?.select })
      const missing = wanted?.missing() ?? []
      if (missing.length > 0) {
        throw source.error(`expected tensors named ${missing.slice(0, 10).map(quoted).join(', ')}`, { missing })
      }
      value = found.value
      return found.tensors
    }),
  )
  return value as T
}

function wantedNames(names: LoadTorchOptions['names']) {
  if (names === undefined) return undefined
  if (typeof names === 'function') return { select: (name: string) => names(name) === true, missing: () => [] }
  if (!Array.isArray(names) || !names.every((name) => typeof name === 'string')) {
    throw argumentError('loadTorch', 'names', 'an array of strings or a function', names)
  }
  const open = new Set<string>(names)
  const all = new Set<string>(names)
  return {
    select: (name: string) => {
      open.delete(name)
      return all.has(name)
    },
    missing: () => [...open],
  }
}

/** Return the object of a torch file, with its tensors unread. */
export async function readTorch(source: ByteSource): Promise<unknown> {
  const head = await source.bytes(0, Math.min(source.size, 512))
  if (head.toString('latin1', 0, 4) === 'PK\x03\x04') return readTorchZip(source, checkpointHost)
  if (head.toString('latin1', 257, 262) === 'ustar') {
    throw source.error(
      'expected a file of torch 0.1.10 or later, got the older tar format. Load and save it with a current torch',
    )
  }
  // A pickle of the magic number begins with PROTO and LONG1 in every protocol that torch used.
  if (head[0] !== 0x80) throw source.error('it is not a file of torch.save')
  return readTorchStream(source, checkpointHost)
}

const checkpointHost = fileHost({
  encoding: 'utf-8',
  advice: 'in Python, save model.state_dict() and plain values',
})
