import { join } from 'node:path'
import { saveSafetensors } from '../../../lib/files/index.js'
import { Linear, Module, type Tensor, tensor } from '../../../lib/index.js'
import type { EmotionDialog } from '../../../lib/kit/emotion/dialog.js'
import type { EmotionModality } from '../../../lib/systems/languagebind-emotion/network/config.js'
import type { EmotionTower } from '../../../lib/systems/languagebind-emotion/network/towers.js'

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

/** A tower that knows an utterance by numbers that a function gives; with a network it turns them. */
export class TinyTower implements EmotionTower<number[]> {
  readonly network: Table | null
  reads = 0
  encoded = 0

  constructor(
    readonly modality: EmotionModality,
    readonly size: number,
    readonly facts: (dialog: EmotionDialog, place: number) => number[] | undefined,
    readonly recipe: Record<string, unknown> = { tower: 'tiny' },
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
