import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll } from 'vitest'
import * as vt from '../../../lib/index.js'

export interface Sample {
  x: number[]
  labels: number
}

const random = new vt.Random(7)
const point = () => Array.from({ length: 6 }, () => random.float() * 2 - 1)

/** Points, and whether their first three coordinates outweigh the rest. */
export const samples: Sample[] = Array.from({ length: 44 }, () => {
  const x = point()
  return { x, labels: x[0]! + x[1]! + x[2]! > x[3]! + x[4]! + x[5]! ? 1 : 0 }
})
export const trainSamples = samples.slice(0, 32)
export const evalSamples = samples.slice(32)

export const collate = vt.padCollate({ x: { dtype: 'float32' }, labels: {} })
export type Batch = ReturnType<typeof collate>

/** With dropout, so that random numbers matter. */
export class Classifier extends vt.Module {
  hidden = new vt.Linear(6, 8)
  norm = new vt.LayerNorm([8])
  dropout: vt.Dropout
  out = new vt.Linear(8, 2)

  constructor(dropout = 0.1) {
    super()
    this.dropout = new vt.Dropout(dropout)
  }

  override forward({ x, labels }: { x: vt.Tensor; labels?: vt.Tensor }): { loss?: vt.Tensor; logits: vt.Tensor } {
    return vt.scope(() => {
      const logits = this.out.forward(this.dropout.forward(this.norm.forward(this.hidden.forward(x)).relu()))
      return labels ? { logits, loss: vt.functional.crossEntropy(logits, labels) } : { logits }
    })
  }
}

export const newModel = (dropout?: number): Classifier => {
  vt.manualSeed(3)
  return new Classifier(dropout)
}

/** A folder that goes when the file's tests are done. */
export function temporary(): (name: string) => string {
  const root = mkdtempSync(join(tmpdir(), 'voxtorch-trainer-'))
  afterAll(() => rmSync(root, { recursive: true, force: true }))
  return (name) => join(root, name)
}

export type Options = vt.TrainerOptions<Classifier, Sample, Batch>

/** A Trainer of four steps an epoch that writes nothing but checkpoints and logs nowhere. */
export function newTrainer(
  args: vt.TrainingArguments,
  options: Partial<Options> = {},
): vt.Trainer<Classifier, Sample, Batch> {
  return new vt.Trainer<Classifier, Sample, Batch>({
    model: newModel(),
    trainDataset: trainSamples,
    evalDataset: evalSamples,
    collate,
    ...options,
    args: {
      reportTo: 'none',
      progress: false,
      learningRate: 0.02,
      perDeviceTrainBatchSize: 8,
      numTrainEpochs: 2,
      loggingSteps: 1,
      ...args,
    },
  })
}

export const accuracy = ({ predictions, labels }: vt.EvalPrediction) => ({
  accuracy: vt.accuracy((labels as vt.Tensor).toArray() as number[], predictions.argmax(1).toArray() as number[]),
})

export const weights = (model: vt.Module): Record<string, unknown> =>
  Object.fromEntries(Object.entries(model.stateDict()).map(([name, value]) => [name, value.toArray()]))
