import { MemorySource } from '../byte-source.js'
import { readTorchStream } from '../torch/stream.js'
import { builtinGlobals, bytesOf, callable, type Globals, moduleName, recordClass } from './builtins.js'
import type { Payload } from './feed.js'
import type { Host, PickleEncoding } from './machine.js'
import { numpyGlobals } from './numpy.js'
import type { Callable, Marker, Site } from './objects.js'
import type { Resolved, Resolving } from './resolvers.js'
import { encodeLatin1 } from './text.js'
import { TorchStorage, torchGlobals } from './torch.js'

export interface HostOptions {
  encoding: PickleEncoding
  /** Classes whose instances are read as their fields: `'Class'` of any module, or `'module.Class'`. */
  records?: readonly string[] | undefined
  /** Resolvers of the caller, which take precedence over the allow-list. */
  resolving?: Resolving | undefined
  /** Advice for a name that is not allowed. */
  advice: string
}

const namespaces: Globals = new Map(
  ['argparse:Namespace', 'types:SimpleNamespace'].map((key) => [key, recordClass(key.replace(':', '.'))]),
)

/** Return the names that a data file may use. */
export function fileHost({ encoding, records = [], resolving, advice }: HostOptions): Host {
  const wanted = new Set(records)
  const classes = new Map<string, Callable>()
  const find = (module: string, name: string, globals: readonly Globals[]): Callable | Marker | undefined => {
    const key = `${moduleName(module)}:${name}`
    for (const table of globals) {
      const found = table.get(key)
      if (found !== undefined) return found
    }
    if (!wanted.has(name) && !wanted.has(`${module}.${name}`)) return undefined
    let record = classes.get(key)
    if (record === undefined) classes.set(key, (record = recordClass(`${module}.${name}`)))
    return record
  }
  const plain = [builtinGlobals, numpyGlobals, torchGlobals, namespaces]
  const inner: Host = { global: (module, name) => find(module, name, plain), encoding, advice }
  const outer = [
    ...plain,
    new Map([callable('torch.storage', '_load_from_bytes', (args, site) => loadBytes(args, site, inner))]),
  ]
  const global = (module: string, name: string): Callable | Marker | Resolved | undefined =>
    resolving?.name(module, name) ?? find(module, name, outer)
  const persistent = resolving?.hasPersistent ? (id: unknown, site: Site) => resolving.persistent(id, site) : undefined
  return { global, ...(persistent && { persistent }), resolving, encoding, advice }
}

/** Apply `_load_from_bytes(bytes)`: a storage in a plain pickle, as a complete file of torch.save. */
async function loadBytes(args: readonly unknown[], site: Site, host: Host): Promise<unknown> {
  const bytes = bytesOf(args[0], site)
  site.charge(bytes.length)
  const storage = await readTorchStream(await sourceOf(bytes, site), host)
  if (storage instanceof TorchStorage) return storage
  throw site.error('expected a storage', { global: 'torch.storage._load_from_bytes' })
}

async function sourceOf(bytes: Uint8Array | Payload, site: Site) {
  if (bytes instanceof Uint8Array) return new MemorySource(bytes, site.place)
  const { source, offset, length, form } = bytes
  if (form === 'bytes') return source.slice(offset, length)
  const decoded = encodeLatin1((await source.bytes(offset, length)).toString('utf8'))
  if (decoded === undefined) throw site.error('expected bytes written as latin1 text, got other characters')
  return new MemorySource(decoded, site.place)
}
