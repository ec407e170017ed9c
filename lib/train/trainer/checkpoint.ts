import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { readJson } from '../../data/json.js'
import { CheckpointError } from '../../native/errors.js'
import type { Module } from '../../nn/index.js'
import { scope, type Tensor } from '../../tensor/index.js'
import type { ResolvedArguments } from './arguments.js'
import type { Ranks } from './distributed.js'
import { checkpointName, listCheckpoints, removeFolder, writeFolder } from './folders.js'
import type { TrainerOptimizer, TrainerScaler, TrainerScheduler } from './optimizing.js'
import { decodeRng, encodeRng, restoreRng, rngState, type SeededGenerators, warn } from './rng.js'
import { newState, type TrainerState } from './state.js'
import { loadTree, saveTree } from './state-tree.js'
import { loadWeights, saveWeights } from './weights.js'

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
  ranks: Ranks
  model: Module
  optimizer: TrainerOptimizer
  scheduler: TrainerScheduler
  scaler: TrainerScaler | undefined
  generators: SeededGenerators
  extra: Readonly<Record<string, Stateful>>
}

const VERSION = 1

/**
 * Writes `checkpoint-<step>`: the weights (see `saveWeights`), `optimizer.*`, `training.*` (schedule, scaler, random
 * numbers of each rank, the rest), `trainer_state.json` and `training_args.json`. The folder appears whole or not at all;
 * then older ones go that `saveTotalLimit` does not allow. All ranks call it; rank 0 writes, the others wait.
 * @returns its path
 */
export async function saveCheckpoint(run: Run): Promise<string> {
  const { state, ranks, optimizer, generators } = run
  const name = checkpointName(state.globalStep)
  if (state.bestStep === state.globalStep) state.bestCheckpoint = name
  const [, ...others] = await scope(() => ranks.all(ranks.isMain ? null : encodeRng(rngState(generators))))
  const whole = await optimizer.consolidateStateDict?.({ to: 0 })
  try {
    return await ranks.fromMain(() => write(run, name, whole ?? optimizer.stateDict?.(), others))
  } finally {
    free(whole)
  }
}

async function write(run: Run, name: string, optimizerState: unknown, otherRngs: unknown[]): Promise<string> {
  const { args, state, model, scheduler, scaler, generators, extra } = run
  const path = join(args.outputDir, name)
  await writeFolder(path, (folder) =>
    scope(async () => {
      await saveWeights(folder, model, args.saveOnlyTrained)
      await saveTree(folder, 'optimizer', optimizerState)
      await saveTree(folder, 'training', {
        version: VERSION,
        scheduler: scheduler.stateDict(),
        scaler: scaler?.stateDict() ?? null,
        rng: rngState(generators),
        ...(otherRngs.length > 0 && { otherRngs }),
        extra: Object.fromEntries(Object.entries(extra).map(([key, value]) => [key, value.stateDict()])),
      })
      await saveTree(folder, 'trainer_state', state)
      await saveTree(folder, 'training_args', args)
    }),
  )
  await rotate(args, state)
  return path
}

/** A consolidated state belongs to nobody. */
function free(state: unknown): void {
  const { state: tensors = {} } = (state ?? {}) as { state?: Record<string, Record<string, Tensor>> }
  for (const one of Object.values(tensors)) for (const tensor of Object.values(one)) tensor.dispose()
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
    if (run.ranks.isMain) await compareArguments(path, run.args)
    await loadWeights(path, run.model, run.args.saveOnlyTrained)
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
    if (run.ranks.isMain && state.batchesPerEpoch !== batchesPerEpoch) {
      warn(
        `${path} was written with ${state.batchesPerEpoch} batches in an epoch, there are ${batchesPerEpoch} now: ` +
          'training goes on at the same batch of other data',
      )
    }
    Object.assign(run.state, state, { maxSteps, batchesPerEpoch })
    // Last: what came before may have drawn random numbers.
    restoreRanks(training, run, path)
  })
}

/** Each rank goes on with random numbers of its own. */
function restoreRanks(
  { rng, otherRngs = [] }: Record<string, unknown>,
  { ranks, generators }: Run,
  path: string,
): void {
  const all = [rng, ...(otherRngs as unknown[])]
  if (all.length !== ranks.size && ranks.isMain) {
    warn(`${path} was written by ${all.length} processes, there are ${ranks.size} now: random numbers will differ`)
  }
  // A rank that is new keeps its seed.
  if (ranks.rank < all.length) restoreRng(decodeRng(all[ranks.rank]), generators, path)
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
  'outputDir runName resumeFromCheckpoint reportTo progress saveStrategy saveSteps saveTotalLimit dataloaderNumWorkers dataloaderPrefetchFactor loadBestModelAtEnd zero ddpTimeout ddpFindUnusedParameters'.split(
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
