import { join } from 'node:path'
import { requireString, requireWhole, shown } from '../../base/check.js'
import { CheckpointError, HubError } from '../../base/errors.js'
import { snakeCase, toCamel } from '../../base/words.js'
import { type ResolveModelOptions, resolveModel } from '../../hub/resolve.js'
import { isConfiguration } from '../../nn/native-module.js'
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

/** Keys of the adapters of Ultravox's training, by the part that they adapt. */
const ADAPTERS = { audio_tower: 'audioModelLoraConfig', language_model: 'textModelLoraConfig' } as const
type Adapted = keyof typeof ADAPTERS

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
      return [part, isConfiguration(adapter) ? toCamel(adapter) : {}]
    }),
  ) as Record<Adapted, NetworkConfig>
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
      return { tensors: withAdapters(tensors, adapters, file), file: own.file, mapped: mapped.includes(true) }
    },
  }
}

async function folderOf(file: string, key: string, { name }: AudioPartSource, from: string, hub: ResolveModelOptions) {
  try {
    return await resolveModel(from, hub)
  } catch (error) {
    if (!(error instanceof CheckpointError || error instanceof HubError)) throw error
    throw new CheckpointError(
      `${file}: ${snakeCase(key)}: expected a folder or repository with ${name}, got ${shown(from)}: ${error.message} Pass its folder as config: { ${key}: FOLDER }.`,
      { file, key, cause: error },
    )
  }
}

/** Return the tensors under the names without adapters, with `alpha / r · B · A` added to the weights that have an adapter. */
function withAdapters(
  tensors: Record<string, Tensor>,
  adapters: Record<Adapted, NetworkConfig>,
  file: string,
): Record<string, Tensor> {
  const plain = Object.fromEntries(
    Object.entries(tensors).map(([name, one]) => [
      name.replace(/^(audio_tower|language_model)\.base_model\.model\./, '$1.').replace('.base_layer.', '.'),
      one,
    ]),
  )
  for (const [name, down] of Object.entries(plain)) {
    if (!name.endsWith('.lora_A.default.weight')) continue
    const path = name.slice(0, -'.lora_A.default.weight'.length)
    const part = path.slice(0, path.indexOf('.')) as Adapted
    const [up, weight] = [plain[`${path}.lora_B.default.weight`], plain[`${path}.weight`]]
    // The check of names reports an adapter without its weight.
    if (up === undefined || weight === undefined || !(part in adapters)) continue
    const { r, loraAlpha } = adapters[part]
    const key = snakeCase(ADAPTERS[part])
    requireWhole(file, `${key}.r`, r, 1)
    if (typeof loraAlpha !== 'number' || !Number.isFinite(loraAlpha) || down.size(0) !== r) {
      throw new CheckpointError(
        `${file}: ${key}: expected a lora_alpha and the r of ${name}, which is ${down.size(0)}, got ${shown(loraAlpha)} and ${shown(r)}.`,
        { file },
      )
    }
    plain[`${path}.weight`] = noGrad(() =>
      weight.add(
        up
          .matmul(down)
          .to({ dtype: weight.dtype })
          .mul(loraAlpha / Number(r)),
      ),
    )
    delete plain[name]
    delete plain[`${path}.lora_B.default.weight`]
  }
  return plain
}
