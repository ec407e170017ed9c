/**
 * Files of BEATs: the published `.pt` (`cfg`, `model` and, of a fine-tuned network, `label_dict`;
 * {@link https://github.com/microsoft/unilm/tree/master/beats}), and directories that `save` wrote.
 */
import { createHash } from 'node:crypto'
import { createReadStream, statSync } from 'node:fs'
import { requireString } from '../../base/check.js'
import { CheckpointError, VoxtorchError } from '../../base/errors.js'
import { toCamel } from '../../base/words.js'
import { loadTorch } from '../../files/torch/torch.js'
import { resolveModel } from '../../hub/index.js'
import { scope, type Tensor } from '../../tensor/index.js'
import { keepOthers, partedConfig } from '../config-keys.js'
import { type LoadNetworkOptions, parted, readConfig, requireModelType } from '../pretrained.js'
import { type Factory, type Fillable, type FillOptions, filled, onlyTensors, readWeights, renamed } from '../weights.js'
import { type BeatsConfig, beatsKeys, beatsSizes } from './config.js'

export const beatsLayout = {
  kind: 'beats',
  forward: 'voxtorch::beats_forward',
  modelType: 'beats',
  architecture: 'Beats',
  prefix: 'beats.',
  ignored: [],
  sizes: beatsSizes,
  keys: beatsKeys,
}

export interface LoadBeatsOptions extends LoadNetworkOptions {
  /** What the published file must hash to, in hexadecimal: its links have died more than once, and copies go around. */
  sha256?: string
}

/** The file that SALMONN is published with. */
const CPT2 = 'BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt, of 363,145,291 bytes'

/** Builds a network from such a file or directory, or from a repository of the hub that holds one. */
export async function loadBeats<M extends Fillable>(
  from: string,
  options: LoadBeatsOptions,
  build: (config: BeatsConfig, factory: Factory) => M,
): Promise<M> {
  const { sha256, ...load } = options
  const { hub, ...fill } = parted(load)
  if (sha256 !== undefined) await requireHash(from, sha256)
  return scope(async () => {
    const { config, tensors, ...source } = isTorchFile(from)
      ? await readPublished(from)
      : await readDirectory(await resolveModel(from, hub), fill)
    const state = renamed(beatsLayout, tensors)
    const { network } = await filled(beatsLayout, { ...source, state }, fill, (factory) => {
      const { known, others } = partedConfig(from, beatsKeys, config)
      const model = build(known, factory)
      keepOthers(model, others)
      tieBiases(state, Object.keys(model.stateDict()), source.file)
      return model
    })
    return network
  })
}

function isTorchFile(from: string): boolean {
  const found = typeof from === 'string' ? statSync(from, { throwIfNoEntry: false }) : undefined
  if (found) return found.isFile()
  if (/\.(pt|pth|bin)$/.test(from)) {
    throw new CheckpointError(
      `there is no file ${from}; BEATs' checkpoints are linked from its page in microsoft/unilm, and any copy of them will do (SALMONN's is ${CPT2})`,
      { file: from },
    )
  }
  return false
}

async function readDirectory(directory: string, options: FillOptions) {
  const config = (await readConfig(directory)) as BeatsConfig
  requireModelType(directory, config, beatsLayout)
  return { config, ...(await readWeights(directory, options)) }
}

async function requireHash(file: string, sha256: string): Promise<void> {
  requireString('Beats.fromPretrained', 'sha256', sha256)
  if (!isTorchFile(file)) throw new CheckpointError(`${file} is a directory, and sha256 is that of a file`, { file })
  const hash = createHash('sha256')
  for await (const part of createReadStream(file)) hash.update(part as Buffer)
  const found = hash.digest('hex')
  if (found === sha256.toLowerCase()) return
  throw new CheckpointError(`${file} is not the file that was asked for: its SHA-256 is ${found}, not ${sha256}`, {
    file,
  })
}

async function readPublished(file: string) {
  const root: unknown = await loadTorch(file, { mmap: true }).catch((cause) => {
    if (!(cause instanceof VoxtorchError)) throw cause
    const bytes = statSync(file).size.toLocaleString('en')
    throw new CheckpointError(
      `${cause.message}; with ${bytes} bytes it may be a web page or half a download (SALMONN's is ${CPT2})`,
      { file, cause },
    )
  })
  const cfg = entry(root, 'cfg')
  const model = entry(root, 'model')
  if (!isRecord(cfg) || !isRecord(model)) {
    const lacking = isRecord(cfg) ? 'model' : 'cfg'
    throw new CheckpointError(`${file} is no BEATs checkpoint: it has no dictionary '${lacking}'`, { file })
  }
  const config: BeatsConfig = toCamel(cfg)
  const labels = labelsOf(entry(root, 'label_dict'), file)
  if (labels) config.id2label = labels
  return { config, tensors: onlyTensors(model), file, mapped: true }
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === null

const entry = (root: unknown, key: string): unknown =>
  root instanceof Map ? root.get(key) : isRecord(root) ? root[key] : undefined

function labelsOf(found: unknown, file: string): Record<string, string> | undefined {
  if (found === undefined || found === null) return undefined
  const pairs = found instanceof Map ? [...found] : isRecord(found) ? Object.entries(found) : undefined
  const bad = pairs?.find(([key, label]) => !/^\d+$/.test(String(key)) || typeof label !== 'string')
  if (!pairs || bad) {
    const where = bad ? `entry ${JSON.stringify(String(bad[0]))}` : 'it'
    throw new CheckpointError(`${file}: label_dict must hold a name for each number of a class; ${where} is not that`, {
      file,
    })
  }
  return Object.fromEntries(pairs.map(([key, label]) => [String(key), label as string]))
}

const SHARED = /^encoder\.layers\.\d+\.self_attn\.relative_attention_bias\.weight$/

/** Files hold the shared bias under the name of each layer, or of the first alone. */
function tieBiases(state: Map<string, Tensor>, own: string[], file: string): void {
  const [first, ...others] = [...state].filter(([name]) => SHARED.test(name))
  if (!first) return
  const [name, bias] = first
  for (const [other, tensor] of others) {
    if (tensor.shape.join() === bias.shape.join() && tensor.equal(bias)) continue
    throw new CheckpointError(`${file}: ${other} differs from ${name}, but BEATs' layers share it`, {
      file,
      tensor: other,
    })
  }
  for (const other of own) if (SHARED.test(other)) state.set(other, bias)
}
