import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { readJson } from '../../data/json.js'
import { loadSafetensors, saveSafetensors } from '../../data/safetensors.js'
import { CheckpointError } from '../../native/errors.js'
import type { Module } from '../../nn/index.js'
import { scope } from '../../tensor/index.js'
import type { ResolvedArguments } from './arguments.js'
import { checkpointName, listCheckpoints, removeFolder, writeFolder } from './folders.js'
import type { TrainerOptimizer, TrainerScaler, TrainerScheduler } from './optimizing.js'
import { restoreRng, rngState, type SeededGenerators, warn } from './rng.js'
import { newState, type TrainerState } from './state.js'
import { loadTree, saveTree } from './state-tree.js'

/** Something else of a run that is saved and restored with it, such as an average of the weights. */
export interface Stateful {
  /** Plain values and tensors. */
  stateDict(): unknown
  loadStateDict(state: never): void
}

/** All that a run is made of. */
export interface Run {
  args: ResolvedArguments
  state: TrainerState
  model: Module
  optimizer: TrainerOptimizer
  scheduler: TrainerScheduler
  scaler: TrainerScaler | undefined
  generators: SeededGenerators
  extra: Readonly<Record<string, Stateful>>
}

const WEIGHTS = 'model.safetensors'
const VERSION = 1

/**
 * Writes `checkpoint-<step>`: `model.safetensors`, `optimizer.*`, `training.*` (schedule, scaler, random numbers, the
 * rest), `trainer_state.json` and `training_args.json`. The folder appears whole or not at all; then older ones go that
 * `saveTotalLimit` does not allow.
 * @returns its path
 */
export async function saveCheckpoint(run: Run): Promise<string> {
  const { args, state, model, optimizer, scheduler, scaler, generators, extra } = run
  const name = checkpointName(state.globalStep)
  const path = join(args.outputDir, name)
  if (state.bestStep === state.globalStep) state.bestCheckpoint = name
  await writeFolder(path, (folder) =>
    scope(async () => {
      await saveSafetensors(join(folder, WEIGHTS), model.stateDict(), { format: 'pt' })
      await saveTree(folder, 'optimizer', optimizer.stateDict())
      await saveTree(folder, 'training', {
        version: VERSION,
        scheduler: scheduler.stateDict(),
        scaler: scaler?.stateDict() ?? null,
        rng: rngState(generators),
        extra: Object.fromEntries(Object.entries(extra).map(([key, value]) => [key, value.stateDict()])),
      })
      await saveTree(folder, 'trainer_state', state)
      await saveTree(folder, 'training_args', args)
    }),
  )
  await rotate(args, state)
  return path
}

/** Removes the oldest checkpoints over the limit, but neither the newest nor the best. */
async function rotate({ outputDir, saveTotalLimit }: ResolvedArguments, state: TrainerState): Promise<void> {
  if (saveTotalLimit === null) return
  const all = await listCheckpoints(outputDir)
  const kept = new Set([checkpointName(state.globalStep), state.bestCheckpoint])
  const old = all.filter(({ name }) => !kept.has(name))
  // The newest counts, and so does the best where the limit has room for it.
  const room = Math.max(0, saveTotalLimit - (all.length - old.length))
  for (const { path } of old.slice(0, old.length - room)) await removeFolder(path)
}

/** The folder to go on from, or undefined to begin afresh. */
export async function findCheckpoint(args: ResolvedArguments): Promise<string | undefined> {
  const { outputDir, resumeFromCheckpoint: wanted } = args
  if (typeof wanted === 'string') {
    if (existsSync(join(wanted, 'trainer_state.json'))) return wanted
    throw new CheckpointError(`resumeFromCheckpoint: ${wanted} is not the folder of a checkpoint`, { file: wanted })
  }
  const last = (await listCheckpoints(outputDir)).at(-1)?.path
  if (wanted || last === undefined) return last
  throw new CheckpointError(
    `${outputDir} has checkpoints of another training, and resumeFromCheckpoint is false: give another outputDir`,
    { file: last },
  )
}

/** Puts a run into the state that `saveCheckpoint` wrote. */
export async function loadCheckpoint(path: string, run: Run): Promise<void> {
  await scope(async () => {
    const state = await readState(path)
    await compareArguments(path, run.args)
    await loadWeights(path, run.model)
    const training = (await loadTree(path, 'training')) as Record<string, unknown>
    if (training?.version !== VERSION) {
      throw new CheckpointError(`${path} has format ${training?.version}, this voxtorch reads ${VERSION}`, {
        file: path,
      })
    }
    run.optimizer.loadStateDict((await loadTree(path, 'optimizer')) as never)
    run.scheduler.loadStateDict(training.scheduler as never)
    if (run.scaler && training.scaler) run.scaler.loadStateDict(training.scaler as never)
    const extra = (training.extra ?? {}) as Record<string, unknown>
    for (const [name, stateful] of Object.entries(run.extra)) {
      if (!Object.hasOwn(extra, name)) {
        throw new CheckpointError(`${path} lacks the state of ${name}`, { file: path, state: name })
      }
      stateful.loadStateDict(extra[name] as never)
    }
    const { maxSteps, batchesPerEpoch } = run.state
    if (state.batchesPerEpoch !== batchesPerEpoch) {
      warn(
        `${path} was written with ${state.batchesPerEpoch} batches in an epoch, there are ${batchesPerEpoch} now: ` +
          'training goes on at the same batch of other data',
      )
    }
    Object.assign(run.state, state, { maxSteps, batchesPerEpoch })
    // Last: what came before may have drawn random numbers.
    restoreRng(training.rng, run.generators, path)
  })
}

export async function loadWeights(path: string, model: Module): Promise<void> {
  const file = join(path, WEIGHTS)
  await scope(async () => {
    try {
      model.loadStateDict((await loadSafetensors(file)).tensors)
    } catch (error) {
      if (!(error instanceof CheckpointError) || error.message.includes(file)) throw error
      throw new CheckpointError(`${file}: ${error.message}`, { ...error, file, cause: error })
    }
  })
}

async function readState(path: string): Promise<TrainerState> {
  const state = (await loadTree(path, 'trainer_state')) as Partial<TrainerState> | null
  const wanted = newState()
  for (const key of Object.keys(wanted) as (keyof TrainerState)[]) {
    const nullable = wanted[key] === null || key === 'batchesPerEpoch'
    const good = typeof state?.[key] === typeof wanted[key] || (nullable && /number|string/.test(typeof state?.[key]))
    if (good) continue
    const file = join(path, 'trainer_state.json')
    throw new CheckpointError(`${file}: ${key} is ${JSON.stringify(state?.[key])}`, { file, field: key })
  }
  return state as TrainerState
}

/** What may differ without changing any number of the run. */
const HARMLESS = new Set(
  'outputDir runName resumeFromCheckpoint reportTo progress saveStrategy saveSteps saveTotalLimit dataloaderNumWorkers dataloaderPrefetchFactor loadBestModelAtEnd'.split(
    ' ',
  ),
)

async function compareArguments(path: string, args: ResolvedArguments): Promise<void> {
  const saved = (await readJson(join(path, 'training_args.json'))) as Record<string, unknown>
  const changed = Object.entries(args)
    .filter(([name, value]) => !HARMLESS.has(name) && JSON.stringify(value) !== JSON.stringify(saved?.[name]))
    .map(([name, value]) => `${name} (${JSON.stringify(saved?.[name])}, now ${JSON.stringify(value)})`)
  if (changed.length === 0) return
  warn(
    `${path} was written with other arguments: ${changed.join(', ')}. Training goes on with the ` +
      'new ones, but for the learning rates, betas and decays that the optimiser and its schedule hold',
  )
}
