import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { CheckpointError } from '../../base/errors.js'
import { loadSafetensors, saveSafetensors } from '../../files/safetensors/safetensors.js'
import type { Module } from '../../nn/index.js'
import { type PeftModel, peftModelOf } from '../../peft/model.js'
import { noGrad, scope, type Tensor } from '../../tensor/index.js'

const WEIGHTS = 'model.safetensors'

/**
 * Write the weights that training changes to `model.safetensors`. A model from `getPeftModel` writes its adapters in PEFT's
 * layout, and `model.safetensors` only for other trainable parameters and running statistics. `onlyTrained` leaves out the
 * frozen weights of any model.
 */
export async function saveWeights(folder: string, model: Module, onlyTrained = false): Promise<void> {
  const tensors = contents(model, peftModelOf(model), onlyTrained)
  await peftModelOf(model)?.savePretrained(folder)
  if (Object.keys(tensors).length > 0) await saveSafetensors(join(folder, WEIGHTS), tensors, { format: 'pt' })
}

/** Load the files of `saveWeights`. */
export async function loadWeights(folder: string, model: Module, onlyTrained = false): Promise<void> {
  const peft = peftModelOf(model)
  const modelTensors = contents(model, peft, onlyTrained)
  const file = join(folder, WEIGHTS)
  await peft?.restore(folder)
  if (peft && Object.keys(modelTensors).length === 0) return
  await scope(async () => {
    try {
      fill(
        model,
        onlyTrained || Boolean(peft),
        modelTensors,
        existsSync(file) || !peft ? (await loadSafetensors(file)).tensors : {},
      )
    } catch (error) {
      if (!(error instanceof CheckpointError) || error.message.includes(file)) throw error
      throw new CheckpointError(`${file}: ${error.message}`, { ...error, file, cause: error })
    }
  })
}

/** @param part whether the file has only some of the model's tensors */
function fill(model: Module, part: boolean, own: Record<string, Tensor>, given: Record<string, Tensor>) {
  const whole = part ? {} : model.stateDict()
  const beside = Object.entries(own).filter(([name]) => !Object.hasOwn(whole, name))
  for (const [name, tensor] of beside) {
    const value = given[name]
    if (!value) throw new CheckpointError(`expected the tensor ${name}, got none`, { missing: [name] })
    if (String(value.shape) !== String(tensor.shape)) {
      throw new CheckpointError(`${name}: expected shape [${tensor.shape}], got [${value.shape}]`, { tensor: name })
    }
    noGrad(() => tensor.copy_(value))
  }
  const names = new Set(beside.map(([name]) => name))
  if (!part) model.loadStateDict(Object.fromEntries(Object.entries(given).filter(([name]) => !names.has(name))))
}

/** Return the tensors that are not in an adapter's file. */
function contents(model: Module, peft: PeftModel | undefined, onlyTrained: boolean): Record<string, Tensor> {
  // The state dictionary does not contain the adapters of a submodule.
  const named = Object.fromEntries(model.namedParameters())
  if (!peft && !onlyTrained) {
    const state = model.stateDict()
    const adapters = Object.entries(named).filter(([name, parameter]) => parameter.requiresGrad && !(name in state))
    const tied = new Set(Object.values(state))
    return { ...state, ...Object.fromEntries(adapters.filter(([, parameter]) => !tied.has(parameter))) }
  }
  const held = new Set(peft?.adapterTensors() ?? [])
  const trained = Object.entries(named).filter(([, parameter]) => parameter.requiresGrad && !held.has(parameter))
  const moving = model.namedBuffers().filter(([name, buffer]) => STATISTICS.test(name) && !held.has(buffer))
  return Object.fromEntries([...trained, ...moving])
}

const STATISTICS = /(^|\.)(running_mean|running_var|num_batches_tracked)$/
