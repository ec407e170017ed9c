import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import { Classifier, collate, evalSamples, newModel, temporary, trainSamples } from './small.js'

const folder = temporary()
const config: vt.LoraConfig = {
  r: 2,
  loraAlpha: 4,
  loraDropout: 0.1,
  targetModules: ['hidden'],
  modulesToSave: ['out'],
}

function newTrainer(peft: vt.PeftModel<Classifier> | Classifier, args: vt.TrainingArguments) {
  return new vt.Trainer({
    model: peft,
    trainDataset: trainSamples,
    evalDataset: evalSamples,
    collate,
    args: {
      reportTo: 'none',
      progress: false,
      learningRate: 0.02,
      perDeviceTrainBatchSize: 8,
      numTrainEpochs: 3,
      loggingSteps: 1,
      saveStrategy: 'epoch',
      ...args,
    },
  })
}
const all = (model: vt.Module) =>
  Object.fromEntries(model.namedParameters().map(([name, value]) => [name, value.toArray()]))
const files = (path: string) => readdirSync(path).sort()

describe('a model with adapters', () => {
  it('has checkpoints of the adapters alone, resumes bit for bit, and saves in the layout of peft', async () => {
    const [whole, parts] = [folder('whole'), folder('parts')]
    const straight = vt.getPeftModel(newModel(), config)
    const trainer = newTrainer(straight, { outputDir: whole })
    const { state } = await trainer.train()
    expect(state.globalStep).toBe(12)
    expect(trainer.model).toBe(straight.model)

    const checkpoint = join(whole, 'checkpoint-12')
    expect(files(checkpoint)).toEqual([
      'adapter_config.json',
      'adapter_model.safetensors',
      'optimizer.json',
      'optimizer.safetensors',
      'trainer_state.json',
      'training.json',
      'training.safetensors',
      'training_args.json',
    ])
    await vt.scope(async () => {
      const { tensors } = await vt.loadSafetensors(join(checkpoint, 'adapter_model.safetensors'))
      expect(Object.keys(tensors).sort()).toEqual([
        'base_model.model.hidden.lora_A.weight',
        'base_model.model.hidden.lora_B.weight',
        'base_model.model.out.bias',
        'base_model.model.out.weight',
      ])
    })

    // Ended in the fifth of twelve steps; the next process makes the model anew, and gives the network itself.
    const first = vt.getPeftModel(newModel(), config)
    const stop: vt.TrainerCallback = {
      onStepEnd: ({ state }) => {
        if (state.globalStep === 5) throw new Error('killed')
      },
    }
    const dies = new vt.Trainer({
      model: first,
      trainDataset: trainSamples,
      evalDataset: evalSamples,
      collate,
      callbacks: [stop],
      args: { ...trainer.args, outputDir: parts, runName: trainer.args.runName },
    })
    await expect(dies.train()).rejects.toThrow('killed')
    expect(readdirSync(parts).filter((name) => name.startsWith('checkpoint'))).toEqual(['checkpoint-4'])
    const second = vt.getPeftModel(newModel(), config)
    const base = second.model.hidden.weight.toArray()
    const resumed = newTrainer(second.model, { outputDir: parts })
    await resumed.train()
    expect(all(second.model)).toEqual(all(straight.model))
    expect(resumed.state.logHistory).toEqual(state.logHistory)
    expect(second.model.hidden.weight.toArray()).toEqual(base)
    for (const file of ['adapter_model.safetensors', 'optimizer.safetensors']) {
      expect(readFileSync(join(parts, 'checkpoint-12', file)).equals(readFileSync(join(checkpoint, file)))).toBe(true)
    }

    // The layout of peft, which lib/peft's own tests compare with Python's.
    await resumed.saveModel(folder('saved'))
    expect(files(folder('saved'))).toEqual(['adapter_config.json', 'adapter_model.safetensors'])
    const loaded = await vt.PeftModel.fromPretrained(newModel(), folder('saved'))
    expect(all(loaded.model)).toEqual(all(straight.model))
  })

  it('puts the best adapter back', async () => {
    const peft = vt.getPeftModel(newModel(0), config)
    const outputDir = folder('best')
    let calls = 0
    const values: unknown[] = []
    const trainer = new vt.Trainer({
      model: peft,
      trainDataset: trainSamples,
      evalDataset: evalSamples,
      collate,
      computeMetrics: () => {
        values.push(all(peft.model))
        return { luck: [1, 3, 2][calls++] as number }
      },
      args: {
        outputDir,
        reportTo: 'none',
        progress: false,
        perDeviceTrainBatchSize: 8,
        learningRate: 0.05,
        evalStrategy: 'epoch',
        saveStrategy: 'epoch',
        saveTotalLimit: 1,
        loadBestModelAtEnd: true,
        metricForBestModel: 'luck',
      },
    })
    await trainer.train()
    expect(all(peft.model)).toEqual(values[1])
    expect(all(peft.model)).not.toEqual(values[2])
  })

  it('keeps what else trains, and the adapters of a part of a model', async () => {
    class Wrapped extends vt.Module {
      inner: Classifier
      scale = new vt.Parameter(vt.ones([2]))
      norm = new vt.BatchNorm1d(6)

      constructor() {
        super()
        vt.manualSeed(5)
        this.inner = new Classifier(0)
      }

      override forward({ x, labels }: { x: vt.Tensor; labels: vt.Tensor }) {
        const logits = this.inner.forward({ x: this.norm.forward(x) }).logits.mul(this.scale)
        return { logits, loss: vt.functional.crossEntropy(logits, labels) }
      }
    }
    const build = (part: boolean) => {
      const model = new Wrapped()
      if (part) vt.getPeftModel(model.inner, config)
      else {
        vt.getPeftModel(model, { ...config, targetModules: ['inner.hidden'], modulesToSave: null })
        model.scale.requiresGrad = true
      }
      return model
    }
    for (const part of [true, false]) {
      const outputDir = folder(`part${part}`)
      const train = async (maxSteps: number) => {
        const model = build(part)
        await newTrainer(model as never, { outputDir, maxSteps, lrSchedulerType: 'constant' }).train()
        return { ...all(model), ...Object.fromEntries(model.namedBuffers().map(([n, b]) => [n, b.toArray()])) }
      }
      const after = await train(4)
      expect(after.scale).not.toEqual([1, 1])
      expect(existsSync(join(outputDir, 'checkpoint-4', 'adapter_model.safetensors'))).toBe(!part)
      expect(existsSync(join(outputDir, 'checkpoint-4', 'model.safetensors'))).toBe(true)
      // Nothing is left to do: the state of the checkpoint is what comes back.
      expect(await train(4)).toEqual(after)
    }
  })

  it('refuses the checkpoint of another adapter, and says which file', async () => {
    const outputDir = folder('other')
    await newTrainer(vt.getPeftModel(newModel(), config), { outputDir, maxSteps: 2 }).train()
    const other = vt.getPeftModel(newModel(), { ...config, r: 3 })
    await expect(newTrainer(other, { outputDir, maxSteps: 2 }).train()).rejects.toThrow(
      /CheckpointError|checkpoint-2\/adapter_model\.safetensors is not an adapter of this network; mis-shaped/,
    )
    await expect(newTrainer(newModel(), { outputDir, maxSteps: 2 }).train()).rejects.toThrow(/model\.safetensors/)
  })
})
