import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { toSnake } from '../../../lib/base/words.js'
import { saveSafetensors } from '../../../lib/files/index.js'
import { Bert, LanguageBind, Linear, Module, manualSeed, type Tensor, tensor } from '../../../lib/index.js'
import type { EmotionDialog } from '../../../lib/kit/emotion/dialog.js'
import type { EmotionModality } from '../../../lib/systems/emotion/network/config.js'
import type { EmotionEncoder } from '../../../lib/systems/emotion/network/encoders.js'
import { fixturePath } from '../../helpers.js'

/** Dialogs of two speakers, whose emotions are among the first `classes`. */
export function dialogs(count: number, emotions: readonly string[], length = 4): EmotionDialog[] {
  return Array.from({ length: count }, (_, d) => ({
    id: String(d + 1),
    source: `made, dialog ${d + 1}`,
    utterances: Array.from({ length }, (_, u) => ({
      id: u + 1,
      text: `words ${d} ${u}`,
      speaker: u % 2 === 0 ? 'Ann' : 'Ben',
      emotion: emotions[(d * 7 + u * 3 + ((d * u) % 2)) % emotions.length] as string,
    })),
  }))
}

class Table extends Module {
  table: Linear

  constructor(size: number) {
    super()
    this.table = new Linear(8, size)
  }
}

/** A encoder that knows an utterance by numbers that a function gives; with a network it turns them. */
export class TinyEncoder implements EmotionEncoder<number[]> {
  readonly network: Table | null
  reads = 0
  encoded = 0

  constructor(
    readonly modality: EmotionModality,
    readonly size: number,
    readonly facts: (dialog: EmotionDialog, place: number) => number[] | undefined,
    readonly recipe: Record<string, unknown> = { encoder: 'tiny' },
    withNetwork = false,
  ) {
    this.network = withNetwork ? new Table(size) : null
  }

  async save(folder: string): Promise<void> {
    if (this.network) await saveSafetensors(join(folder, 'table.safetensors'), this.network.stateDict())
  }

  async source(dialog: EmotionDialog, place: number): Promise<string | undefined> {
    return this.facts(dialog, place)?.join()
  }

  async read(dialog: EmotionDialog, place: number): Promise<number[] | undefined> {
    this.reads += 1
    return this.facts(dialog, place)
  }

  async encode(inputs: readonly number[][]): Promise<Tensor> {
    this.encoded += inputs.length
    const rows = tensor(inputs as number[][], { dtype: 'float32' })
    return this.network ? this.network.table.forward(rows) : rows
  }
}

/** `size` numbers: 1 at the place of a class, small noise elsewhere that depends on where the utterance is. */
export function hot(size: number, at: number, seed: number): number[] {
  return Array.from({ length: size }, (_, i) => (i === at ? 1 : 0) + 0.1 * Math.sin(seed * 12.9898 + i * 78.233))
}

/** A folder with a small BERT and a vocabulary of these words. */
export async function tinyBert(words: readonly string[]): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emotion-bert-'))
  manualSeed(3)
  const vocabulary = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', ...words]
  const shape = { hiddenSize: 16, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 16 }
  const bert = Bert.fromConfig({ ...shape, vocabSize: vocabulary.length, maxPositionEmbeddings: 24 })
  await bert.save(folder)
  writeFileSync(join(folder, 'vocab.txt'), `${vocabulary.join('\n')}\n`)
  return folder
}

const TOWER = { numHiddenLayers: 1, hiddenSize: 8, intermediateSize: 12, numAttentionHeads: 2, hiddenAct: 'gelu' }

/** A folder of LanguageBind for one modality as they are published, with a small vocabulary of CLIP's kind. */
export async function tinyLanguageBind(modality: 'video' | 'audio' | 'image', projectionDim = 6): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emotion-bind-'))
  const tokens = fixturePath('models/clip-tokenizer')
  for (const name of readdirSync(tokens)) copyFileSync(join(tokens, name), join(folder, name))
  const own = {
    ...{ video: { addTimeAttn: true, numFrames: 4 }, audio: { numMelBins: 8, targetLength: 24 }, image: {} }[modality],
  }
  const visionConfig = { ...TOWER, imageSize: 8, patchSize: 4, ...own }
  const textConfig = { ...TOWER, vocabSize: 1000, maxPositionEmbeddings: 77 }
  manualSeed(4)
  const model = LanguageBind.fromConfig({ [modality]: { textConfig, visionConfig, projectionDim } })
  const published = (name: string) =>
    name
      .replace(`modality_scale.${modality}`, 'logit_scale')
      .replace(`modality_encoder.${modality}.`, 'vision_model.')
      .replace(`modality_proj.${modality}.`, 'visual_projection.')
      .replace('modality_encoder.language.', 'text_model.')
      .replace('modality_proj.language.', 'text_projection.')
  const state = Object.fromEntries(Object.entries(model.stateDict()).map(([name, one]) => [published(name), one]))
  await saveSafetensors(join(folder, 'model.safetensors'), state)
  const config = {
    model_type: `LanguageBind${modality[0]?.toUpperCase()}${modality.slice(1)}`,
    projection_dim: projectionDim,
    text_config: toSnake(textConfig),
    vision_config: toSnake(visionConfig),
  }
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
  return folder
}

/** A folder of small pictures, the frames of a film. */
export function frameFolder(parent: string, name: string, seed: number, count = 5): string {
  const folder = join(parent, name)
  mkdirSync(folder, { recursive: true })
  for (let i = 0; i < count; i += 1) {
    const bytes = Array.from({ length: 10 * 8 * 3 }, (_, k) => (seed * 31 + i * 25 + k * (7 + seed)) % 256)
    writeFileSync(join(folder, `${i}.ppm`), `P3 10 8 255 ${bytes.join(' ')}`)
  }
  return folder
}
