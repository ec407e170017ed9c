/**
 * Files of BEATs: the published `.pt` (`cfg`, `model` and, of a fine-tuned network, `label_dict`;
 * {@link https://github.com/microsoft/unilm/tree/master/beats}), and directories that `save` wrote.
 */
import { createHash } from 'node:crypto'
import { createReadStream, statSync } from 'node:fs'
import { requireString, shown } from '../../base/check.js'
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
  /** Expected SHA-256 of the published file, in hexadecimal. Published links are unstable, so use it to check copies. */
  sha256?: string
}

/** The file that SALMONN uses. */
const CPT2 = 'BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt, of 363,145,291 bytes'

/** Load a network from a published file, a directory, or a Hub repository with one. */
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
      `${from}: expected a BEATs checkpoint, which does not exist. The checkpoints are linked in microsoft/unilm (SALMONN uses ${CPT2}).`,
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
  if (!isTorchFile(file)) {
    throw new CheckpointError(`${file}: expected a file with sha256, got a directory. Leave out sha256.`, { file })
  }
  const hash = createHash('sha256')
  for await (const part of createReadStream(file)) hash.update(part as Buffer)
  const found = hash.digest('hex')
  if (found === sha256.toLowerCase()) return
  throw new CheckpointError(`${file}: expected the SHA-256 ${sha256}, got ${found}. Download the file again.`, { file })
}

async function readPublished(file: string) {
  const root: unknown = await loadTorch(file, { mmap: true }).catch((cause) => {
    if (!(cause instanceof VoxtorchError)) throw cause
    const bytes = statSync(file).size.toLocaleString('en')
    throw new CheckpointError(
      `${cause.message}. The file has ${bytes} bytes; it may be a web page or an incomplete download (SALMONN's is ${CPT2}).`,
      { file, cause },
    )
  })
  const cfg = entry(root, 'cfg')
  const model = entry(root, 'model')
  if (!isRecord(cfg) || !isRecord(model)) {
    const lacking = isRecord(cfg) ? 'model' : 'cfg'
    throw new CheckpointError(
      `${file}: expected a BEATs checkpoint with the dictionary '${lacking}', got one without`,
      { file },
    )
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
    const where = bad ? `entry ${JSON.stringify(String(bad[0]))}` : shown(found)
    throw new CheckpointError(`${file}: label_dict: expected a name for each class index, got ${where}`, { file })
  }
  return Object.fromEntries(pairs.map(([key, label]) => [String(key), label as string]))
}

const SHARED = /^encoder\.layers\.\d+\.self_attn\.relative_attention_bias\.weight$/

/** Tie the shared table, which files have under the name of each layer, or only of the first. */
function tieBiases(state: Map<string, Tensor>, parameterNames: string[], file: string): void {
  const [first, ...others] = [...state].filter(([name]) => SHARED.test(name))
  if (!first) return
  const [name, bias] = first
  for (const [other, tensor] of others) {
    if (tensor.shape.join() === bias.shape.join() && tensor.equal(bias)) continue
    throw new CheckpointError(
      `${file}: ${other}: expected the values of ${name}, which BEATs' layers share, got others`,
      { file, tensor: other },
    )
  }
  for (const other of parameterNames) if (SHARED.test(other)) state.set(other, bias)
}
