import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { requireString, shown } from '../../base/check.js'
import { CheckpointError, HubError } from '../../base/errors.js'
import { snakeCase } from '../../base/words.js'
import { type ResolveModelOptions, resolveModel } from '../../hub/resolve.js'
import { isConfiguration } from '../../nn/native-module.js'
import { fromFile, resolveConfig } from '../../peft/config.js'
import { noGrad, type Tensor } from '../../tensor/index.js'
import type { NetworkConfig } from '../network.js'
import { type ForeignCheckpoint, readConfig } from '../pretrained.js'
import { readWeights } from '../weights.js'
import type { AudioFamily, AudioPartSource } from './family.js'

interface Source extends AudioPartSource {
  folder: string
}

/** A checkpoint of a folder and of those of its parts; `folders` has the latter by the key of the part's configuration. */
export interface ComposedCheckpoint extends ForeignCheckpoint {
  folders: Readonly<Record<string, string>>
}

/** Keys of config.json with the settings of PEFT's adapters of training, by the part that they adapt. */
const ADAPTERS = { audio_tower: 'audioModelLoraConfig', language_model: 'textModelLoraConfig' } as const
type Adapted = keyof typeof ADAPTERS

/** An adapter of training: its rank, 0 without one, and the factor of its product. */
interface TrainingAdapter {
  rank: number
  scale: number
}

/** Upper bound of `lora_alpha`. Published adapters have at most 512. */
const MOST_ALPHA = 1e6

/** Settings that describe the adapter, or that only its training reads. */
const WITHOUT_EFFECT = ['inferenceMode', 'taskType', 'baseModelNameOrPath', 'revision']

/**
 * Read the settings of an adapter, which the original passes to PEFT's `LoraConfig`. `unfreeze_layers` concerns training only, and names of
 * tensors tell the target modules.
 * @throws CheckpointError naming file and key for a setting that is not computed
 */
function trainingAdapter(file: string, name: string, value: unknown): TrainingAdapter {
  const fail = (message: string, cause?: unknown) =>
    new CheckpointError(`${file}: ${name}${message}`, { file, key: name, cause })
  if (value === undefined || value === null) return { rank: 0, scale: 0 }
  if (!isConfiguration(value)) throw fail(`: expected an object, got ${shown(value)}.`)
  const { unfreeze_layers: _, r = 8, target_modules: targets, ...settings } = value as Record<string, unknown>
  const read = { peft_type: 'LORA', ...settings, target_modules: targets ?? [], ...(r !== 0 && { r }) }
  let config: ReturnType<typeof fromFile>
  try {
    config = fromFile(read, name)
  } catch (cause) {
    throw new CheckpointError(`${file}: ${(cause as Error).message}`, { file, key: name, cause })
  }
  const neutral = resolveConfig({ targetModules: [] })
  for (const [key, one] of Object.entries(config)) {
    if (['targetModules', 'r', 'loraAlpha', 'useRslora', ...WITHOUT_EFFECT].includes(key)) continue
    const expected = neutral[key as keyof typeof neutral]
    // Values of lora_A and lora_B replace the initial ones.
    const isNeutral = key === 'initLoraWeights' ? one === false || one === 'gaussian' : false
    if (isNeutral || isDeepStrictEqual(one, expected)) continue
    throw fail(`.${snakeCase(key)}: expected ${JSON.stringify(expected)}, got ${shown(one)}.`)
  }
  const { loraAlpha: alpha, useRslora } = config
  if (!(Math.abs(alpha) <= MOST_ALPHA)) {
    throw fail(`.lora_alpha: expected a number of at most ${MOST_ALPHA}, got ${shown(alpha)}.`)
  }
  const rank = r === 0 ? 0 : config.r
  return { rank, scale: alpha / (useRslora ? Math.sqrt(config.r) : config.r) }
}

/**
 * Find the folders of a model's parts. Their configurations become those of the parts, so that a saved model has everything in it. Adapters of
 * training are added to the weights that they adapt.
 * @param described config.json of the folder, with the caller's folders of parts
 * @throws CheckpointError naming file and key for a part that is not available
 */
export async function composedCheckpoint(
  directory: string,
  family: AudioFamily,
  described: NetworkConfig,
  hub: ResolveModelOptions,
): Promise<ComposedCheckpoint> {
  const file = join(directory, 'config.json')
  const config = { ...described }
  const sources: Source[] = []
  for (const [key, source] of Object.entries(family.sources ?? {})) {
    const from = config[key] ?? null
    delete config[key]
    if (from === null) {
      if (isConfiguration(config[source.part])) continue
      throw new CheckpointError(
        `${file}: expected ${snakeCase(source.part)} or ${snakeCase(key)} for ${source.name}, got neither. Pass its folder as config: { ${key}: FOLDER }.`,
        { file, key },
      )
    }
    requireString(file, snakeCase(key), from)
    const folder = await folderOf(file, key, source, from as string, hub)
    // Python finds the feature extractor by this name.
    config[source.part] = { ...(await readConfig(folder)), NameOrPath: from }
    sources.push({ ...source, folder })
  }
  const adapters = Object.fromEntries(
    Object.entries(ADAPTERS).map(([part, key]) => {
      const adapter = config[key]
      delete config[key]
      return [part, trainingAdapter(file, snakeCase(key), adapter)]
    }),
  ) as Record<Adapted, TrainingAdapter>
  return {
    config,
    folders: Object.fromEntries(sources.map(({ part, folder }) => [part, folder])),
    weights: async (options) => {
      const own = await readWeights(directory, options)
      const tensors: Record<string, Tensor> = {}
      const mapped = [own.mapped]
      for (const { folder, nameOf } of sources) {
        const weights = await readWeights(folder, options)
        mapped.push(weights.mapped)
        for (const [name, one] of Object.entries(weights.tensors)) {
          const named = nameOf(name)
          if (named !== undefined) tensors[named] = one
        }
      }
      Object.assign(tensors, own.tensors)
      return { tensors: withAdapters(tensors, adapters, own.file), file: own.file, mapped: mapped.includes(true) }
    },
  }
}

async function folderOf(file: string, key: string, { name }: AudioPartSource, from: string, hub: ResolveModelOptions) {
  // They select within the model's repository.
  const { revision: _, files: __, ...others } = hub
  try {
    return await resolveModel(from, others)
  } catch (error) {
    if (!(error instanceof CheckpointError || error instanceof HubError)) throw error
    throw new CheckpointError(
      `${file}: ${snakeCase(key)}: expected a folder or repository with ${name}, got ${shown(from)}: ${error.message} Pass its folder as config: { ${key}: FOLDER }.`,
      { file, key, cause: error },
    )
  }
}

/**
 * Return the tensors under the names without adapters, with the scaled product of lora_B [out, r] and lora_A [r, in] added to each weight
 * [out, in] that has an adapter.
 * @throws CheckpointError naming file and tensor for other shapes
 */
function withAdapters(
  tensors: Record<string, Tensor>,
  adapters: Record<Adapted, TrainingAdapter>,
  file: string,
): Record<string, Tensor> {
  const plain = Object.fromEntries(
    Object.entries(tensors).map(([name, one]) => [
      name.replace(/^(audio_tower|language_model)\.base_model\.model\./, '$1.').replace('.base_layer.', '.'),
      one,
    ]),
  )
  for (const [name, down] of Object.entries(plain)) {
    if (!name.endsWith(DOWN)) continue
    const path = name.slice(0, -DOWN.length)
    const part = path.slice(0, path.indexOf('.'))
    const [up, weight] = [plain[path + UP], plain[`${path}.weight`]]
    // The check of names reports an adapter without its weight.
    if (up === undefined || weight === undefined || !Object.hasOwn(adapters, part)) continue
    const { rank, scale } = adapters[part as Adapted]
    const [out, width] = weight.shape
    const isAdapter = (one: Tensor, ...shape: (number | undefined)[]) =>
      one.isFloatingPoint() && one.shape.length === 2 && one.shape.every((size, i) => size === shape[i])
    const isMatrix = weight.ndim === 2 && weight.isFloatingPoint()
    if (!isMatrix || !isAdapter(down, rank, width) || !isAdapter(up, out, rank) || down.dtype !== up.dtype) {
      const form = ({ dtype, shape }: Tensor) => `${dtype} [${shape.join(', ')}]`
      throw new CheckpointError(
        `${file}: ${name}: expected [r, in] with lora_B [out, r] for a weight [out, in], where ${snakeCase(ADAPTERS[part as Adapted])}.r is ${rank}, got ${form(down)} with ${form(up)} for ${form(weight)}.`,
        { file, tensor: name },
      )
    }
    plain[`${path}.weight`] = noGrad(() => weight.add(up.matmul(down).to({ dtype: weight.dtype }).mul(scale)))
    delete plain[name]
    delete plain[path + UP]
  }
  return plain
}

/** Ends of names of an adapter's tensors. */
const [DOWN, UP] = ['.lora_A.default.weight', '.lora_B.default.weight'] as const
