import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { CheckpointError } from '../../base/errors.js'
import { loadSafetensors, saveSafetensors } from '../../files/safetensors/safetensors.js'
import type { Module } from '../../nn/index.js'
import { type PeftModel, peftModelOf } from '../../peft/model.js'
import { noGrad, scope, type Tensor } from '../../tensor/index.js'

const WEIGHTS = 'model.safetensors'

/**
 * Writes what training changes of a model: `model.safetensors`; of a model from `getPeftModel` its adapters in PEFT's
 * layout, with `model.safetensors` only for what else trains or, like running means, moves. `onlyTrained` leaves out what is
 * frozen of any model.
 */
export async function saveWeights(folder: string, model: Module, onlyTrained = false): Promise<void> {
  const tensors = contents(model, peftModelOf(model), onlyTrained)
  await peftModelOf(model)?.savePretrained(folder)
  if (Object.keys(tensors).length > 0) await saveSafetensors(join(folder, WEIGHTS), tensors, { format: 'pt' })
}

/** Puts back what `saveWeights` wrote. */
export async function loadWeights(folder: string, model: Module, onlyTrained = false): Promise<void> {
  const peft = peftModelOf(model)
  const own = contents(model, peft, onlyTrained)
  const file = join(folder, WEIGHTS)
  await peft?.restore(folder)
  if (peft && Object.keys(own).length === 0) return
  await scope(async () => {
    try {
      fill(
        model,
        onlyTrained || Boolean(peft),
        own,
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
    if (!value) throw new CheckpointError(`${name} is missing`, { missing: [name] })
    if (String(value.shape) !== String(tensor.shape)) {
      throw new CheckpointError(`${name} has shape [${value.shape}], the model's [${tensor.shape}]`, { tensor: name })
    }
    noGrad(() => tensor.copy_(value))
  }
  const names = new Set(beside.map(([name]) => name))
  if (!part) model.loadStateDict(Object.fromEntries(Object.entries(given).filter(([name]) => !names.has(name))))
}

/** The tensors that are not in an adapter's file. */
function contents(model: Module, peft: PeftModel | undefined, onlyTrained: boolean): Record<string, Tensor> {
  // Adapters of a part of the model are no part of its state dictionary.
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
