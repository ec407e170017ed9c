/**
 * Files of BigVGAN: NVIDIA's repositories (config.json and `bigvgan_generator.pt`, whose `generator` is the state
 * dictionary; {@link https://huggingface.co/nvidia/bigvgan_22khz_80band}), files of its training (`g_05000000` in a folder with
 * config.json), and folders with safetensors.
 */
import { existsSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { CheckpointError } from '../../base/errors.js'
import { loadTorch } from '../../files/torch/torch.js'
import { resolveModel } from '../../hub/resolve.js'
import { op } from '../../native/call.js'
import { scope, Tensor } from '../../tensor/index.js'
import { keepOthers, partedConfig } from '../config-keys.js'
import { type LoadNetworkOptions, parted, readConfig, requireModelType } from '../pretrained.js'
import { type Factory, type Fillable, filled, onlyTensors, readWeights, renamed } from '../weights.js'
import { type BigVGANConfig, bigVGANKeys, bigVGANSizes, nativeConfig } from './config.js'

export interface LoadBigVGANOptions extends LoadNetworkOptions {
  /**
   * Whether weights are stored as magnitude and direction, for training (true), or folded, which is faster (false). Files of either kind are
   * converted. Default: as in the file.
   */
  weightNorm?: boolean
}

export const bigVGANLayout = {
  kind: 'bigvgan',
  forward: 'voxtorch::bigvgan_forward',
  modelType: 'bigvgan',
  architecture: 'BigVGAN',
  prefix: '',
  ignored: [],
  // The filters are constants, so a file may omit them.
  optional: [/\.filter$/],
  sizes: bigVGANSizes,
  keys: bigVGANKeys,
  native: nativeConfig,
  // Newer versions of PyTorch use these names for the parts of a weight norm.
  rename: (name: string) =>
    name
      .replace(/\.parametrizations\.weight\.original0$/, '.weight_g')
      .replace(/\.parametrizations\.weight\.original1$/, '.weight_v'),
}

const GENERATOR = 'bigvgan_generator.pt'

/** Load a network from a file or folder, or from a Hub repository. */
export async function loadBigVGAN<M extends Fillable>(
  from: string,
  options: LoadBigVGANOptions,
  build: (config: BigVGANConfig, factory: Factory) => M,
): Promise<M> {
  const { weightNorm, ...load } = options
  const { hub, ...fill } = parted(load)
  const isFile = typeof from === 'string' && statSync(from, { throwIfNoEntry: false })?.isFile() === true
  // Discriminator files, which are larger, are not downloaded.
  const files = ['config.json', GENERATOR, '*.safetensors', '*.safetensors.index.json']
  const directory = isFile ? dirname(from) : await resolveModel(from, { ...hub, files })
  return scope(async () => {
    const config = await readConfig(directory)
    requireModelType(directory, config, bigVGANLayout)
    const generator = isFile ? from : join(directory, GENERATOR)
    const source = existsSync(generator) ? await readGenerator(generator) : await readWeights(directory, fill)
    const { tensors, ...rest } = source
    const state = renamed(bigVGANLayout, tensors)
    const isSplit = [...state.keys()].some((name) => name.endsWith('.weight_v'))
    const splitWeights = weightNorm ?? isSplit
    if (splitWeights !== isSplit) convert(state, splitWeights)
    const { known, others } = partedConfig(from, bigVGANKeys, config)
    const { network } = await filled(bigVGANLayout, { ...rest, state }, fill, (factory) =>
      build({ ...known, weightNorm: splitWeights }, factory),
    )
    keepOthers(network, others)
    return network
  })
}

async function readGenerator(file: string) {
  const root: unknown = await loadTorch(file, { mmap: true })
  const isRecord = (value: unknown): value is object => typeof value === 'object' && value !== null
  const generator = isRecord(root) ? Reflect.get(root, 'generator') : undefined
  const bare = isRecord(root) && Object.values(root).some((value) => value instanceof Tensor)
  if (!isRecord(generator) && !bare) {
    throw new CheckpointError(
      `${file}: expected a BigVGAN checkpoint with the dictionary 'generator', got one without`,
      { file },
    )
  }
  return { tensors: onlyTensors(isRecord(generator) ? generator : (root as object)), file, mapped: true }
}

const weightNorm = op('aten::_weight_norm')
const magnitudes = op('aten::linalg_vector_norm')

/** Convert magnitude and direction to the weight, or the weight to both. Call it inside a scope. */
export function convert(state: Map<string, Tensor>, split: boolean): void {
  for (const [name, value] of [...state]) {
    const part = split ? '.weight' : '.weight_v'
    if (!name.endsWith(part)) continue
    const layer = name.slice(0, -part.length)
    state.delete(name)
    if (split) {
      state.set(`${layer}.weight_v`, value)
      state.set(`${layer}.weight_g`, magnitudes(value, 2, [1, 2], true) as Tensor)
      continue
    }
    const magnitude = state.get(`${layer}.weight_g`)
    if (!magnitude) {
      throw new CheckpointError(`BigVGAN: expected ${layer}.weight_g for ${name}, got a file without it`, {
        tensor: name,
      })
    }
    state.delete(`${layer}.weight_g`)
    state.set(`${layer}.weight`, weightNorm(value, magnitude, 0) as Tensor)
  }
}
