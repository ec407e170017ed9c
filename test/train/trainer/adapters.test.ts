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

  it.each([{ bf16: true }, { fp16: true }, { bf16: true, useDora: true }, { fp16: true, useDora: true }])(
    'trains in mixed precision: %o',
    async ({ useDora = false, ...precision }) => {
      const model = newModel(0)
      vt.getPeftModel(model, { ...config, loraDropout: 0, useDora })
      const before = all(model)
      const trainer = newTrainer(model, {
        outputDir: folder(JSON.stringify({ useDora, ...precision })),
        maxSteps: 12,
        ...precision,
      })
      await trainer.train()
      const losses = trainer.state.logHistory.flatMap(({ loss }) => (typeof loss === 'number' ? [loss] : []))
      expect(losses.at(-1)).toBeLessThan(losses[0] as number)
      const after = all(model)
      for (const [name, value] of Object.entries(after)) {
        const trains = /lora_|^out\./.test(name)
        expect(JSON.stringify(value) !== JSON.stringify(before[name]), name).toBe(trains)
      }
    },
  )

  it('saves the adapters of a part with the model, and loads them', async () => {
    class Both extends vt.Module {
      readonly inner = newModel(0)
      readonly head = new vt.Linear(2, 2)
      readonly config = { dim: 2 }

      override forward({ x, labels }: { x: vt.Tensor; labels: vt.Tensor }) {
        const logits = this.head.forward(this.inner.forward({ x }).logits)
        return { logits, loss: vt.functional.crossEntropy(logits, labels) }
      }
    }
    const model = new Both()
    const peft = vt.getPeftModel(model.inner, config)
    peft.addAdapter('second', { r: 1, targetModules: ['hidden'] })
    const outputDir = folder('saved-part')
    const trainer = newTrainer(model as never, { outputDir, maxSteps: 4 })
    await trainer.train()
    model.eval()
    const x = vt.randn([3, 6])
    const labels = vt.tensor([0, 1, 0])
    const expected = model.forward({ x, labels }).logits
    for (const directory of [folder('by-trainer'), folder('by-hand')]) {
      if (directory.endsWith('trainer')) await trainer.saveModel(directory)
      else await vt.savePretrained(directory, model, model.config)
      expect(files(join(directory, 'adapters', 'inner'))).toEqual([
        'adapter_config.json',
        'adapter_model.safetensors',
        'second',
      ])
      const loaded = await vt.loadPretrained(directory, () => new Both())
      expect(loaded.forward({ x, labels }).logits.equal(expected)).toBe(true)
      const attached = await vt.loadPretrained(directory, () => {
        const made = new Both()
        vt.getPeftModel(made.inner, { ...config, r: 2 })
        return made
      })
      expect(attached.forward({ x, labels }).logits.equal(expected)).toBe(true)
    }
    // The adapters go when the model is saved without them.
    peft.unload()
    await vt.savePretrained(folder('by-hand'), model, model.config)
    const plain = await vt.loadPretrained(folder('by-hand'), () => new Both())
    expect(plain.inner.namedParameters().some(([name]) => name.includes('lora_'))).toBe(false)
  })

  it('refuses to save a part without the adapters that a model around it has', async () => {
    class Around extends vt.Module {
      readonly inner = newModel(0)
    }
    const model = new Around()
    vt.getPeftModel(model, { r: 1, targetModules: ['inner.hidden'] })
    await expect(vt.savePretrained(folder('inner'), model.inner, {})).rejects.toThrow(
      /those of hidden belong to a network that contains this Classifier/,
    )
    const network = new vt.DecoderLM({
      vocabSize: 9,
      hiddenSize: 8,
      intermediateSize: 8,
      numHiddenLayers: 1,
      numAttentionHeads: 2,
    })
    vt.getPeftModel(network, { targetModules: ['q_proj'] })
    const warned = new Promise<Error>((resolve) => process.once('warning', resolve))
    await network.save(folder('decoder'))
    expect((await warned).message).toMatch(/without its adapters \(model\.layers\.0\.self_attn\.q_proj\)/)
  })

  it('refuses the checkpoint of another adapter, and says which file', async () => {
    const outputDir = folder('other')
    await newTrainer(vt.getPeftModel(newModel(), config), { outputDir, maxSteps: 2 }).train()
    const other = vt.getPeftModel(newModel(), { ...config, r: 3 })
    await expect(newTrainer(other, { outputDir, maxSteps: 2 }).train()).rejects.toThrow(
      /CheckpointError|checkpoint-2\/adapter_model\.safetensors: expected an adapter of this network; mis-shaped/,
    )
    await expect(newTrainer(newModel(), { outputDir, maxSteps: 2 }).train()).rejects.toThrow(/model\.safetensors/)
  })
})
