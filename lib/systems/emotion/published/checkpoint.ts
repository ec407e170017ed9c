import { existsSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { defined, requireOptions, requireString, shown } from '../../../base/check.js'
import { CheckpointError } from '../../../base/errors.js'
import { readCheckpointJson } from '../../../files/json/json.js'
import { loadSafetensors } from '../../../files/safetensors/safetensors.js'
import { loadTorch } from '../../../files/torch/torch.js'
import { EMOTIONS } from '../../../kit/emotion/dialog.js'
import type { LanguageBindFrom } from '../../../models/languagebind/files.js'
import { LanguageBind } from '../../../models/languagebind/languagebind.js'
import { tensorsOf } from '../../../models/weights.js'
import { type Device, noGrad, scope, type Tensor } from '../../../tensor/index.js'
import { type EmotionModality, MODALITIES } from '../network/config.js'
import type { EmotionEncoder } from '../network/encoders.js'
import { LanguageBindEmotionEncoder } from '../network/languagebind-encoders.js'
import { EmotionClassifier } from '../network/network.js'

export interface PublishedEmotionOptions {
  device?: Device
  /** Class names in the order of the head's rows. Default EMOTIONS, which is the original's order. */
  labels?: readonly string[]
  /** Seed of the new head for an adapter file, which contains no head. Default 42. */
  seed?: number
}

/** Names of a checkpoint's weights file, as the original's Trainer and PEFT write it. */
const FILES = ['model.safetensors', 'pytorch_model.bin', 'adapter_model.safetensors', 'adapter_model.bin']
const PEFT = 'base_model.model.'

/**
 * Load a classifier that the original's scripts trained (experiments 1 to 6; `kosenko_exp_1` is published). `from` is a checkpoint
 * folder or file with `model.modality_encoder.…`, `model.modality_proj.…` and `linear.weight`, or with PEFT's adapters
 * `base_model.model.model.…`. It has no temperatures, configurations or tokenizer: they come from the checkpoints in `encoders`, as
 * do the base weights of adapters.
 *
 * With adapters the original froze its head at random weights and did not save it. Such a classifier gets a new head, seeded by
 * an option, and `fresh` names it.
 *
 * ```ts
 * const encoders = { video: 'LanguageBind/LanguageBind_Video_FT' }
 * const { model } = await loadPublishedEmotion('kosenko_exp_1', encoders)
 * await model.save('exp-1')
 * ```
 * @returns the classifier in evaluation mode, and the names of its tensors that the file lacks
 * @throws CheckpointError that names the file and the tensors that are missing, unknown or of another shape
 */
export async function loadPublishedEmotion(
  from: string,
  encoders: LanguageBindFrom,
  options: PublishedEmotionOptions = {},
): Promise<{ model: EmotionClassifier; fresh: string[] }> {
  const where = 'loadPublishedEmotion'
  requireString(where, 'from', from)
  requireOptions(where, options, ['device', 'labels', 'seed'])
  const { labels = EMOTIONS, device, seed = 42 } = options
  const file = fileOf(from)
  const bind = await LanguageBind.fromPretrained(encoders, { dtype: 'float32', ...defined({ device }) })
  return scope(async () => {
    const found = file.endsWith('.safetensors')
      ? (await loadSafetensors(file)).tensors
      : tensorsOf(await loadTorch(file))
    const state = new Map(
      Object.entries(found)
        .filter(([name]) => !name.endsWith('position_ids'))
        .map(([name, value]) => [plainName(name), value] as const),
    )
    const isAdapter = Object.keys(found).some((name) => name.startsWith(PEFT))
    const inside = new Map([...state].filter(([name]) => name.startsWith('model.')))
    const heads = new Map([...state].filter(([name]) => !name.startsWith('model.')))
    const strange = [...heads.keys()].filter((name) => !['linear.weight', 'linear.bias'].includes(name))
    if (inside.size === 0 || strange.length > 0) {
      const found = inside.size === 0 ? 'no tensor with that prefix' : `also ${strange.join(', ')}`
      throw new CheckpointError(
        `${file}: expected tensors of experiments 1 to 6 (model.modality_encoder.…, linear.weight), got ${found}. Check the path.`,
        { file },
      )
    }
    const modalities = MODALITIES.filter((name) => {
      const own = `model.modality_encoder.${name === 'text' ? 'language' : name}.`
      return [...inside.keys()].some((one) => one.startsWith(own))
    })
    const lost = modalities.find((name) => name !== 'text' && !(bind.modalities as string[]).includes(name))
    if (lost !== undefined) {
      throw new CheckpointError(
        `${file}: expected the base checkpoint of its ${lost} encoder, got none. Add \`${lost}\` to the second argument.`,
        { file, modality: lost },
      )
    }
    const merged = isAdapter ? await withoutAdapters(file, inside) : { weights: inside, changes: [] }
    intoNetwork(file, bind, modalities, merged, isAdapter)
    const own = Object.fromEntries(modalities.map((name) => [name, new LanguageBindEmotionEncoder(bind, name)]))
    const sizes = Object.fromEntries(modalities.map((name) => [name, own[name]?.size as number]))
    const config = { labels, sizes, fusion: 'concat' as const, headBias: heads.has('linear.bias') }
    const model = new EmotionClassifier(config, {
      ...{ encoders: own as unknown as Partial<Record<EmotionModality, EmotionEncoder>>, seed },
      ...(device !== undefined && { device }),
    })
    if (!heads.has('linear.weight') && !isAdapter) {
      throw new CheckpointError(
        `${file}: linear.weight: expected a tensor, got none. Load a complete checkpoint, or one of PEFT's adapters.`,
        { file, tensor: 'linear.weight' },
      )
    }
    const head = model.head.linear
    for (const [name, value] of heads)
      put(file, name, name === 'linear.bias' ? (head.bias as Tensor) : head.weight, value)
    return { model: model.eval(), fresh: heads.has('linear.weight') ? [] : ['linear.weight'] }
  })
}

function fileOf(from: string): string {
  const facts = statSync(from, { throwIfNoEntry: false })
  if (facts?.isFile()) return from
  const found = FILES.map((name) => join(from, name)).find((path) => existsSync(path))
  if (found !== undefined) return found
  throw new CheckpointError(
    `${from}: expected a file, or a folder with one of ${FILES.join(', ')}, got neither. Check the path.`,
    { file: from },
  )
}

/** Remove the parts that PEFT adds to the name of a tensor. */
const plainName = (name: string): string =>
  (name.startsWith(PEFT) ? name.slice(PEFT.length) : name)
    .replace('.base_layer.', '.')
    .replace('.modules_to_save.default.', '.')
    .replace(/\.lora_(A|B)\.default\.weight$/, '.lora_$1.weight')

interface Merged {
  /** Weights by their names in the file. */
  weights: Map<string, Tensor>
  /** Deltas to add to the network's own weights. */
  changes: [name: string, change: Tensor][]
}

/** Compute the weight deltas of LoRA adapters, in float32. */
async function withoutAdapters(file: string, inside: Map<string, Tensor>): Promise<Merged> {
  const configFile = join(dirname(file), 'adapter_config.json')
  const { r, lora_alpha: alpha } = await readCheckpointJson(configFile)
  if (typeof r !== 'number' || typeof alpha !== 'number' || r < 1) {
    throw new CheckpointError(
      `${configFile}: expected numbers r (at least 1) and lora_alpha, got ${shown(r)} and ${shown(alpha)}. Use PEFT's file.`,
      { file: configFile },
    )
  }
  const weights = new Map<string, Tensor>()
  const changes: Merged['changes'] = []
  for (const [name, value] of inside) {
    const [, path, part] = /^(.+)\.lora_(A|B)\.weight$/.exec(name) ?? []
    if (path === undefined) weights.set(name, value)
    const other = inside.get(`${path}.lora_${part === 'A' ? 'B' : 'A'}.weight`)
    if (path === undefined) continue
    if (other === undefined)
      throw new CheckpointError(`${file}: ${path}: expected lora_A and lora_B, got only lora_${part}. Save it again.`, {
        ...{ file, tensor: name },
      })
    if (part === 'B') continue
    const fits = value.ndim === 2 && other.ndim === 2 && value.shape[0] === r && other.shape[1] === r
    if (!fits) {
      throw new CheckpointError(
        `${file}: ${path}: expected lora_A [${r}, in] and lora_B [out, ${r}], got [${value.shape}] and [${other.shape}]. Check r in ${configFile}.`,
        { file, tensor: name },
      )
    }
    changes.push([
      `${path}.weight`,
      scope(() =>
        other
          .float()
          .matmul(value.float())
          .mul(alpha / r),
      ),
    ])
  }
  return { weights, changes }
}

function intoNetwork(
  file: string,
  bind: LanguageBind,
  modalities: readonly EmotionModality[],
  { weights, changes }: Merged,
  isAdapter: boolean,
): void {
  const keys = modalities.map((name) => (name === 'text' ? 'language' : name))
  const own = new Map(
    bind.namedParameters().filter(([name]) => keys.some((key) => name.startsWith(`modality_encoder.${key}.`) || name.startsWith(`modality_proj.${key}.`))), // biome-ignore format: one line
  )
  const target = (name: string) => {
    const found = own.get(name.slice('model.'.length))
    if (found !== undefined) return found
    throw new CheckpointError(
      `${file}: ${name}: expected a tensor of LanguageBind's encoders, got an unknown name. Check the base checkpoints.`,
      { file, tensor: name },
    )
  }
  const missing = isAdapter ? [] : [...own.keys()].filter((name) => !weights.has(`model.${name}`))
  if (missing.length > 0) {
    const examples = missing.slice(0, 3).map((name) => `model.${name}`)
    throw new CheckpointError(
      `${file}: expected all tensors of the encoders, got a file without ${missing.length} of them, such as ${examples.join(', ')}. Save it again.`,
      { file, missing },
    )
  }
  for (const [name, value] of weights) put(file, name, target(name), value)
  noGrad(() => {
    for (const [name, change] of changes) {
      const weight = target(name)
      checkShape(file, name, weight, change)
      scope(() => void weight.add_(change.to({ device: weight.device, dtype: weight.dtype })))
    }
  })
}

function put(file: string, name: string, target: Tensor, value: Tensor): void {
  checkShape(file, name, target, value)
  noGrad(() => target.copy_(value))
}

function checkShape(file: string, name: string, target: Tensor, value: Tensor): void {
  if (target.shape.join() === value.shape.join()) return
  throw new CheckpointError(
    `${file}: ${name}: expected shape [${target.shape}], got [${value.shape}]. Check the base checkpoint.`,
    { file, tensor: name },
  )
}
