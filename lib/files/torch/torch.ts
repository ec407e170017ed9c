import { optionsOf } from '../../base/arguments.js'
import { misuse, requireString } from '../../base/check.js'
import { CheckpointError } from '../../base/errors.js'
import { type DType, deviceWord, dtypeFacts } from '../../tensor/dtype.js'
import { type Device, scope } from '../../tensor/index.js'
import { type ByteSource, quoted, withFile } from '../byte-source.js'
import { fileHost } from '../pickle/host.js'
import { finish, type PickleValue } from '../pickle/result.js'
import { readTorchStream } from './stream.js'
import { readTorchZip } from './zip.js'

export interface LoadTorchOptions {
  /** Where tensors are put, whatever device they were saved from. Default `'cpu'`. */
  device?: Device
  /** Converts floating point tensors; integers and booleans stay as they are. */
  dtype?: DType
  /**
   * Which tensors are wanted: names, or a function of a name. A name is the keys from the root joined with dots, such as
   * `'encoder.weight'` in a state dict and `'model.encoder.weight'` in a checkpoint that has one under `model`. The
   * others are neither read nor returned (null in lists).
   */
  names?: readonly string[] | ((name: string) => boolean)
  /**
   * Maps the file instead of reading it: pages come when they are touched, and changes stay in this process. For weights
   * that are not trained. CPU only; booleans and what `dtype` converts are copied all the same.
   */
  mmap?: boolean
}

/**
 * Reads a file of `torch.save` (`.pt`, `.pth`, `.bin`), of today's zip format or of that before torch 1.6. Only data is
 * read; nothing in the file runs.
 *
 * A state dict gives an object of tensors by name; a checkpoint gives nested objects as {@link PickleValue} says, with
 * `argparse.Namespace` as an object. Tensors that share a storage share it here, with their strides and offsets. Of each
 * storage only what is looked at is read, into native memory. The checksums of storages are not looked at, as in torch.
 *
 * The type parameter is a promise of the caller, not checked.
 *
 * @throws CheckpointError naming the file and the byte or entry, for a file that is broken or holds more than data: a
 * whole nn.Module, TorchScript, quantized or sparse tensors
 */
export async function loadTorch<T = PickleValue>(path: string, options: LoadTorchOptions = {}): Promise<T> {
  requireString('loadTorch', 'path', path)
  const { device, dtype, names, mmap = false } = optionsOf(options, 'loadTorch', ['device', 'dtype', 'names', 'mmap'])
  if (typeof mmap !== 'boolean') throw misuse('loadTorch', 'mmap', 'true or false', mmap)
  if (dtype !== undefined && dtypeFacts(dtype).kind !== 'float') {
    throw misuse('loadTorch', 'dtype', 'a floating point dtype', dtype)
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
        throw source.error(`it has no tensor named ${missing.slice(0, 10).map(quoted).join(', ')}`, { missing })
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
    throw misuse('loadTorch', 'names', 'an array of strings or a function', names)
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

/** The object of a torch file, its tensors unread. */
export async function readTorch(source: ByteSource): Promise<unknown> {
  const head = await source.bytes(0, Math.min(source.size, 512))
  if (head.toString('latin1', 0, 4) === 'PK\x03\x04') return readTorchZip(source, checkpointHost)
  if (head.toString('latin1', 257, 262) === 'ustar') {
    throw source.error('it is of the tar format before torch 0.1.10; load and save it with a torch of today')
  }
  // A pickle of the magic number begins with PROTO and LONG1, in every protocol that torch wrote.
  if (head[0] !== 0x80) throw source.error('it is no file of torch.save')
  return readTorchStream(source, checkpointHost)
}

const checkpointHost = fileHost({
  encoding: 'utf-8',
  advice: 'in Python, save model.state_dict(), and plain values beside it',
})
