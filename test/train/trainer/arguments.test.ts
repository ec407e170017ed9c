import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import { settledTensors } from '../../helpers.js'
import { collate, newModel, newTrainer, temporary, trainSamples } from './small.js'

const folder = temporary()
const args = (more: object) => newTrainer({ outputDir: folder('a/b'), ...more } as vt.TrainingArguments).args
const refused = (more: object) => {
  try {
    args(more)
  } catch (error) {
    expect(error).toBeInstanceOf(vt.ConfigError)
    return (error as Error).message
  }
  throw new Error('nothing was thrown')
}

describe('TrainingArguments', () => {
  it.each([
    ['a null byte', 'a\0b'],
    ['half a character', 'a\ud800b'],
    ['a name that is too long', `runs/${'x'.repeat(256)}`],
    ['a name of too many bytes', 'é'.repeat(128)],
    ['a path that is too long', 'ab/'.repeat(1400)],
    ['nothing', ''],
  ])('refuse an outputDir with %s', (_, outputDir) => {
    expect(refused({ outputDir })).toMatch(/^TrainingArguments: expected outputDir to be /)
  })

  it('have the defaults of transformers', () => {
    const { model, trainDataset } = { model: newModel(), trainDataset: trainSamples }
    const trainer = new vt.Trainer({ model, trainDataset, collate, args: { outputDir: folder('a/b') } })
    expect(trainer.args).toMatchObject({
      runName: 'b',
      perDeviceTrainBatchSize: 8,
      gradientAccumulationSteps: 1,
      numTrainEpochs: 3,
      maxSteps: -1,
      learningRate: 5e-5,
      weightDecay: 0,
      adamBeta1: 0.9,
      adamBeta2: 0.999,
      adamEpsilon: 1e-8,
      maxGradNorm: 1,
      lrSchedulerType: 'linear',
      warmupSteps: 0,
      loggingStrategy: 'steps',
      loggingSteps: 500,
      evalStrategy: 'no',
      evalSteps: 500,
      saveStrategy: 'steps',
      saveSteps: 500,
      saveTotalLimit: null,
      metricForBestModel: null,
      greaterIsBetter: null,
      seed: 42,
      dataSeed: 42,
      progress: false,
      reportTo: ['jsonl', 'tensorboard', 'html'],
    })
  })

  it('name the nearest for one that is unknown', () => {
    expect(refused({ learning_rate: 1 })).toBe(
      "TrainingArguments: expected a known argument, got 'learning_rate'; did you mean 'learningRate'?",
    )
    expect(refused({ perDeviceTrainBatchsize: 1 })).toMatch(/did you mean 'perDeviceTrainBatchSize'\?/)
    expect(refused({ evalStrategie: 'no' })).toMatch(/did you mean 'evalStrategy'\?/)
    expect(refused({ quux: 1 })).toBe("TrainingArguments: expected a known argument, got 'quux'")
  })

  it('take one of two spellings', () => {
    expect(args({ evaluationStrategy: 'epoch' }).evalStrategy).toBe('epoch')
    expect(args({ progress: undefined, disableTqdm: false }).progress).toBe(true)
    expect(refused({ evaluationStrategy: 'no', evalStrategy: 'no' })).toMatch(/which are aliases, got both/)
    expect(refused({ disableTqdm: true, progress: true })).toMatch(/which are aliases, got both/)
    expect(args({ dataSeed: 7 }).dataSeed).toBe(7)
    expect(args({ seed: null }).seed).toBe(null)
    expect(args({ reportTo: 'none' }).reportTo).toEqual([])
  })

  it('choose the metric and its direction', () => {
    const best = { evalStrategy: 'epoch', saveStrategy: 'epoch', loadBestModelAtEnd: true }
    expect(args(best)).toMatchObject({ metricForBestModel: 'loss', greaterIsBetter: false })
    expect(args({ ...best, metricForBestModel: null })).toMatchObject({ metricForBestModel: 'loss' })
    expect(args({ ...best, metricForBestModel: 'accuracy' }).greaterIsBetter).toBe(true)
    expect(args({ ...best, metricForBestModel: 'wer', greaterIsBetter: false }).greaterIsBetter).toBe(false)
  })

  it.each([
    [{ outputDir: undefined }, /outputDir to be the folder/],
    [{ perDeviceTrainBatchSize: 0 }, /perDeviceTrainBatchSize to be an integer of at least 1, got 0/],
    [{ learningRate: Number.NaN }, /learningRate to be a number of at least 0/],
    [{ learningRate: '2e-5' }, /learningRate to be a number of at least 0, got/],
    [{ adamBeta1: 1 }, /adamBeta1 to be a number of at least 0 and below 1/],
    [{ numTrainEpochs: 0 }, /numTrainEpochs to be positive/],
    [{ numTrainEpochs: Number.POSITIVE_INFINITY }, /numTrainEpochs to be a finite number/],
    [{ maxSteps: 0 }, /maxSteps to be positive, or -1 for none/],
    [{ loggingSteps: 1.5 }, /loggingSteps to be an integer of at least 1, or a fraction below 1/],
    [{ lrSchedulerType: 'cosin' }, /lrSchedulerType to be 'linear', 'cosine'/],
    [{ saveStrategy: 'never' }, /saveStrategy to be 'no', 'steps', 'epoch', 'best'/],
    [{ saveTotalLimit: 0 }, /saveTotalLimit to be an integer of at least 1/],
    [{ reportTo: ['wandb'] }, /reportTo to be 'jsonl', 'tensorboard', 'html'/],
    [{ bf16: true, fp16: true }, /one of bf16 and fp16, got both/],
    [{ earlyStoppingPatience: 2 }, /evalStrategy 'steps' or 'epoch' with earlyStoppingPatience, got 'no'/],
    [{ loadBestModelAtEnd: true }, /evalStrategy 'steps' or 'epoch' with loadBestModelAtEnd, got 'no'/],
    [{ loadBestModelAtEnd: true, evalStrategy: 'epoch' }, /equal evalStrategy and saveStrategy/],
    [
      { loadBestModelAtEnd: true, evalStrategy: 'steps', evalSteps: 3, saveSteps: 5 },
      /saveSteps to be a multiple of evalSteps with loadBestModelAtEnd, got 5 and 3/,
    ],
    [{ gradientCheckpointing: true }, /a model with native layers or .*, got Classifier/],
    [{ resumeFromCheckpoint: 1 }, /resumeFromCheckpoint to be a boolean or the folder of a checkpoint/],
  ])('refuse %j', (more, message) => {
    expect(refused(more)).toMatch(message)
  })
})

describe('loadTrainingArguments', () => {
  const file = (name: string, text: string) => {
    mkdirSync(folder('files'), { recursive: true })
    writeFileSync(join(folder('files'), name), text)
    return join(folder('files'), name)
  }

  it('reads YAML and JSON, in either spelling', async () => {
    const yaml = file(
      'a.yaml',
      'output_dir: out\nlearning_rate: 2e-5\nadam_beta1: 0.8\nbf16: true\nsaveTotalLimit: ~\n',
    )
    const expected = { outputDir: 'out', learningRate: 2e-5, adamBeta1: 0.8, bf16: true, saveTotalLimit: null }
    expect(await vt.loadTrainingArguments(yaml)).toEqual(expected)
    const json = file('a.json', JSON.stringify(expected))
    expect(await vt.loadTrainingArguments(json)).toEqual(expected)
    expect(newTrainer(await vt.loadTrainingArguments(json)).args).toMatchObject(expected)
  })

  it('says which file and which key is wrong', async () => {
    const unknown = file('b.yaml', 'outputDir: out\nlearning_rat: 1\n')
    await expect(vt.loadTrainingArguments(unknown)).rejects.toThrow(
      `${unknown}: TrainingArguments: expected a known argument, got 'learningRat'; did you mean 'learningRate'?`,
    )
    const twice = file('c.yaml', 'outputDir: out\noutput_dir: out\n')
    await expect(vt.loadTrainingArguments(twice)).rejects.toThrow(
      `${twice}: expected each argument once, got outputDir twice`,
    )
    await expect(vt.loadTrainingArguments(file('d.json', '[1]'))).rejects.toThrow(vt.ConfigError)
    await expect(vt.loadTrainingArguments(folder('none.json'))).rejects.toThrow(vt.DataError)
    await expect(vt.loadTrainingArguments(3 as never)).rejects.toThrow(vt.ConfigError)
  })
})

describe('Trainer', () => {
  const output = { outputDir: folder('misuse') }
  it.each([
    [{ model: {} }, /model to be a Module/],
    [{ computeLoss: 3 }, /computeLoss to be a function/],
    [{ callbacks: [{ onStepend: () => 1 }] }, /known event, got 'onStepend'; did you mean onStepEnd/],
    [{ callbacks: [{ onStepEnd: 1 }] }, /onStepEnd to be a function/],
    [{ callbacks: {} }, /callbacks to be an array/],
    [{ callbacks: [null] }, /a callback to be an object, got null/],
    [{ callbacks: [7] }, /a callback to be an object, got 7/],
    [{ loggers: 1 }, /loggers to be an array/],
    [{ optimizers: { scheduler: {} } }, /expected an optimizer with the scheduler/],
  ])('refuses %j', (options, message) => {
    expect(() => newTrainer(output, options as never)).toThrow(message)
  })

  it('needs data to evaluate on, and to train on', async () => {
    expect(() => newTrainer({ ...output, evalStrategy: 'epoch' }, { evalDataset: undefined as never })).toThrow(
      /expected an evalDataset with this evalStrategy/,
    )
    const none = newTrainer(output, { trainDataset: undefined as never, evalDataset: undefined as never })
    await expect(none.train()).rejects.toThrow(/trainDataset to be the training data/)
    await expect(none.evaluate()).rejects.toThrow(/evalDataset to be the evaluation data/)
    await expect(newTrainer(output, { trainDataset: [] }).train()).rejects.toThrow(vt.DataError)
    const labels = newTrainer(
      { ...output, labelSmoothingFactor: 0.1 },
      { collate: vt.padCollate({ x: { dtype: 'float32' } }) as never },
    )
    await expect(labels.train()).rejects.toThrow(/labelSmoothingFactor: expected logits .* and labels in the batch/)
  })

  it('says what is wrong with a loss', async () => {
    const loss = (computeLoss: unknown) => newTrainer(output, { computeLoss: computeLoss as never }).train()
    await expect(loss(() => 3)).rejects.toThrow(/computeLoss: expected the batch's loss/)
    await expect(loss(() => vt.zeros([2]))).rejects.toThrow(/got a tensor of shape \[2\]/)
    await expect(loss(() => vt.zeros([]))).rejects.toThrow(/depends on a trainable parameter/)
    await expect(newTrainer(output, { model: new vt.Linear(6, 2) as never }).train()).rejects.toThrow(vt.VoxtorchError)
    const before = await settledTensors()
    const trainer = newTrainer(output, { computeLoss: () => vt.zeros([2]) })
    await expect(trainer.train()).rejects.toThrow(vt.ConfigError)
    trainer.dispose()
    trainer.model.dispose()
    expect(vt.memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })
})
