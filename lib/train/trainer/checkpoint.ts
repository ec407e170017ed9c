import { existsSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { moveIntoPlace } from '../../base/atomic.js'
import { CheckpointError, DataError, DistributedError, VoxtorchError } from '../../base/errors.js'
import { readJson } from '../../files/json/json.js'
import type { Module } from '../../nn/index.js'
import { scope, type Tensor } from '../../tensor/index.js'
import type { ResolvedArguments } from './arguments.js'
import type { Ranks } from './distributed.js'
import { checkpointName, isCheckpointName, listCheckpoints, removeFolder, writeFolder } from './folders.js'
import type { TrainerOptimizer, TrainerScaler, TrainerScheduler } from './optimizing.js'
import { decodeRng, encodeRng, restoreRng, rngState, type SeededGenerators, warn } from './rng.js'
import type { TrainerState } from './state.js'
import { loadTree, saveTree } from './state-tree.js'
import { loadWeights, saveWeights } from './weights.js'

/** Additional state that is saved and restored with a run, such as an average of the weights. */
export interface Stateful {
  /** Plain values and tensors. */
  stateDict(): unknown
  loadStateDict(state: never): void
}

/** Everything that a run consists of. */
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
 * Write `checkpoint-<step>`: the weights (see `saveWeights`), `optimizer.*`, `training.*` (schedule, scaler, random number
 * generators of each rank and more), `trainer_state.json` and `training_args.json`. The folder is written atomically; then
 * checkpoints beyond `saveTotalLimit` are removed. All ranks call it; rank 0 writes, the others wait.
 * @returns the folder's path
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

/** Free a consolidated state, which belongs to no scope. */
function free(state: unknown): void {
  const { state: tensors = {} } = (state ?? {}) as { state?: Record<string, Record<string, Tensor>> }
  for (const one of Object.values(tensors)) for (const tensor of Object.values(one)) tensor.dispose()
}

/** Remove the oldest checkpoints over the limit, except the newest and the best. */
async function rotate({ outputDir, saveTotalLimit }: ResolvedArguments, state: TrainerState): Promise<void> {
  if (saveTotalLimit === null) return
  const all = await listCheckpoints(outputDir)
  const kept = new Set([checkpointName(state.globalStep), state.bestCheckpoint])
  const old = all.filter(({ name }) => !kept.has(name))
  // The newest counts toward the limit, and so does the best if the limit is above 1.
  const room = Math.max(0, saveTotalLimit - (all.length - old.length))
  for (const { path } of old.slice(0, old.length - room)) await removeFolder(path)
}

/**
 * Return the checkpoint folders to resume from, newest first; the older ones are fallbacks for damaged ones. Empty: start from
 * scratch.
 */
export async function findCheckpoints(args: ResolvedArguments): Promise<string[]> {
  const { outputDir, resumeFromCheckpoint: wanted } = args
  if (typeof wanted === 'string') {
    if (!existsSync(join(wanted, 'trainer_state.json'))) {
      throw new CheckpointError(
        `TrainingArguments.resumeFromCheckpoint: expected the folder of a checkpoint, got ${wanted}`,
        { file: wanted },
      )
    }
    const beside = await listCheckpoints(dirname(resolve(wanted)))
    const place = beside.findIndex(({ name }) => name === basename(resolve(wanted)))
    const before = beside.slice(0, Math.max(0, place)).map(({ path }) => path)
    return [wanted, ...before.reverse()]
  }
  const all = (await listCheckpoints(outputDir)).map(({ path }) => path).reverse()
  if (wanted || all.length === 0) return all
  throw new CheckpointError(
    `${outputDir}: expected a folder without checkpoints, since resumeFromCheckpoint is false. Set another outputDir`,
    { file: all[0] },
  )
}

/**
 * Restore a run from the first of the checkpoints; with `skipDamagedCheckpoints` from the first complete one, and the damaged
 * ones in `outputDir` are renamed. All ranks call it, and resume from the same checkpoint.
 */
export async function resume(paths: readonly string[], run: Run): Promise<void> {
  const { args, ranks } = run
  const damaged: string[] = []
  for (const [i, path] of paths.entries()) {
    let failure: unknown
    try {
      await loadCheckpoint(path, run)
    } catch (error) {
      failure = error
    }
    const [worst] = await ranks.max([failure === undefined ? 0 : isDamage(failure) ? 1 : 2])
    if (worst === 0) break
    const next = paths[i + 1]
    if (worst === 1 && args.skipDamagedCheckpoints && next !== undefined) {
      damaged.push(path)
      if (ranks.isMain) warn(`${String((failure as Error)?.message ?? path)}: training goes on from ${next}`)
      continue
    }
    if (failure === undefined)
      throw new DistributedError(`${path}: expected all ranks to resume from it, got an error on another rank`, {
        file: path,
      })
    throw worst === 1 && next !== undefined ? withWayOut(failure as VoxtorchError, next) : failure
  }
  await ranks.fromMain(async () => {
    // Otherwise they would be the newest at the next resume too.
    for (const path of damaged) {
      if (resolve(dirname(path)) === resolve(args.outputDir)) await moveIntoPlace(path, `${path}.damaged-${Date.now()}`)
    }
  })
}

/** Return whether an error comes from damaged files, not from a model or an argument that does not match them. */
function isDamage(error: unknown): boolean {
  if (!(error instanceof CheckpointError || error instanceof DataError)) return false
  const fields = error as unknown as Record<string, unknown>
  return ['missing', 'unexpected', 'mismatched', 'state', 'generator'].every((name) => fields[name] === undefined)
}

function withWayOut(error: VoxtorchError, next: string): VoxtorchError {
  const message =
    `${error.message}; to resume from ${next}, the checkpoint before it, set skipDamagedCheckpoints: true, or ` +
    `resumeFromCheckpoint: '${next}' with another outputDir`
  const fields = { ...error, previous: next, cause: error }
  return error instanceof DataError ? new DataError(message, fields) : new CheckpointError(message, fields)
}

/** Restore a run from the files that `saveCheckpoint` wrote. */
async function loadCheckpoint(path: string, run: Run): Promise<void> {
  await scope(async () => {
    const state = await readState(path)
    if (run.ranks.isMain) await compareArguments(path, run.args)
    await loadWeights(path, run.model, run.args.saveOnlyTrained)
    const training = (await loadTree(path, 'training')) as Record<string, unknown>
    if (training?.version !== VERSION) {
      throw new CheckpointError(`${path}: expected format ${VERSION}, got ${training?.version}`, {
        file: path,
      })
    }
    const optimizer = await loadTree(path, 'optimizer')
    restoring(path, 'optimizer.json', '', () => run.optimizer.loadStateDict(optimizer as never))
    restoring(path, 'training.json', 'scheduler', () => run.scheduler.loadStateDict(training.scheduler as never))
    if (run.scaler && training.scaler) {
      restoring(path, 'training.json', 'scaler', () => run.scaler?.loadStateDict(training.scaler as never))
    }
    const extra = (training.extra ?? {}) as Record<string, unknown>
    if (typeof extra !== 'object' || Array.isArray(extra)) throw wrongField(path, 'training.json', 'extra', extra)
    for (const [name, stateful] of Object.entries(run.extra)) {
      if (!Object.hasOwn(extra, name)) {
        throw new CheckpointError(`${path}: expected the state of ${name} in it, got none`, { file: path, state: name })
      }
      stateful.loadStateDict(extra[name] as never)
    }
    const { maxSteps, batchesPerEpoch } = run.state
    if (run.ranks.isMain && state.batchesPerEpoch !== batchesPerEpoch) {
      warn(
        `${path}: expected ${state.batchesPerEpoch} batches in an epoch, got ${batchesPerEpoch}: ` +
          'training resumes at the same batch index of different data',
      )
    }
    Object.assign(run.state, state, { maxSteps, batchesPerEpoch })
    // Restore the generators last, since the steps above may draw random numbers.
    restoreRanks(training, run, path)
  })
}

const wrongField = (path: string, name: string, field: string, value: unknown): CheckpointError => {
  const file = join(path, name)
  const text = JSON.stringify(value) ?? String(value)
  return new CheckpointError(
    `${file}: expected a valid ${field}, got ${text.length > 100 ? `${text.slice(0, 100)}…` : text}`,
    {
      file,
      field,
    },
  )
}

/** Run a step of restoring, and turn any error that malformed values cause into a CheckpointError. */
function restoring(path: string, name: string, field: string, work: () => void): void {
  try {
    work()
  } catch (cause) {
    if (cause instanceof VoxtorchError && !(cause instanceof CheckpointError)) throw cause
    const file = join(path, name)
    const message = `${file}: expected ${field || 'a state'} that can be restored, got ${(cause as Error)?.message}`
    throw new CheckpointError(message, { ...(cause as object), file, field, cause })
  }
}

/** Restore the random number generators of each rank. */
function restoreRanks(
  { rng, otherRngs = [] }: Record<string, unknown>,
  { ranks, generators }: Run,
  path: string,
): void {
  if (!Array.isArray(otherRngs)) throw wrongField(path, 'training.json', 'otherRngs', otherRngs)
  const all = [rng, ...otherRngs]
  if (all.length !== ranks.size && ranks.isMain) {
    warn(
      `${path}: expected ${all.length} processes, as when it was written, got ${ranks.size}: random numbers will differ`,
    )
  }
  // A rank that was not there before keeps its seed.
  if (ranks.rank >= all.length) return
  const rankRng = all[ranks.rank]
  const field = ranks.isMain ? 'rng' : `otherRngs[${ranks.rank - 1}]`
  if (typeof rankRng !== 'object' || rankRng === null) throw wrongField(path, 'training.json', field, rankRng)
  restoreRng(decodeRng(rankRng), generators, `${join(path, 'training.json')}: ${field}`)
}

type Test = (value: unknown) => boolean
const isNumber: Test = (value) => typeof value === 'number'
const isCount: Test = (value) => Number.isSafeInteger(value) && (value as number) >= 0
const isDuration: Test = (value) => Number.isFinite(value) && (value as number) >= 0
const orNull =
  (test: Test): Test =>
  (value) =>
    value === null || test(value)

/** Check of each field of a state. Losses and norms may be null, if training diverged. */
const FIELDS: Record<keyof TrainerState, Test> = {
  globalStep: isCount,
  maxSteps: isCount,
  epoch: isDuration,
  epochIndex: isCount,
  batchInEpoch: isCount,
  batchesPerEpoch: orNull(isCount),
  samplesSeen: isCount,
  tokensSeen: isCount,
  lossSum: isNumber,
  lossSteps: isCount,
  lossBefore: isNumber,
  gradNorm: orNull(isNumber),
  learningRate: isNumber,
  bestMetric: orNull(isNumber),
  bestStep: orNull(isCount),
  bestCheckpoint: orNull((value) => typeof value === 'string' && isCheckpointName(value)),
  evaluationsSinceBest: isCount,
  stopped: (value) => typeof value === 'boolean',
  seconds: isDuration,
  logHistory: (value) => Array.isArray(value) && value.every(isEntry),
}

function isEntry(value: unknown): boolean {
  const { step, epoch } = (value ?? {}) as Record<string, unknown>
  return isCount(step) && isDuration(epoch) && Object.values(value as object).every(isNumber)
}

async function readState(path: string): Promise<TrainerState> {
  const read = (await loadTree(path, 'trainer_state')) as Record<string, unknown> | null
  const names = Object.keys(FIELDS) as (keyof TrainerState)[]
  for (const name of names) {
    if (!FIELDS[name](read?.[name])) throw wrongField(path, 'trainer_state.json', name, read?.[name])
  }
  // Keep only the known fields.
  return Object.fromEntries(names.map((name) => [name, read?.[name]])) as unknown as TrainerState
}

/** Arguments that may differ without changing any number of the run. */
const HARMLESS = new Set(
  'outputDir runName onNonFinite resumeFromCheckpoint skipDamagedCheckpoints reportTo progress saveStrategy saveSteps saveTotalLimit dataloaderNumWorkers dataloaderPrefetchFactor loadBestModelAtEnd zero ddpTimeout ddpFindUnusedParameters'.split(
    ' ',
  ),
)

async function compareArguments(path: string, args: ResolvedArguments): Promise<void> {
  const saved = (await readJson(join(path, 'training_args.json'))) as Record<string, unknown>
  const changed = Object.entries(args)
    // An argument that an older version did not have counts as its default.
    .filter(([name, value]) => !HARMLESS.has(name) && !(value === false && saved?.[name] === undefined))
    .filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(saved?.[name]))
    .map(([name, value]) => `${name} (${JSON.stringify(saved?.[name])}, now ${JSON.stringify(value)})`)
  if (changed.length === 0) return
  warn(
    `${path}: expected the arguments of the first run, got other ones: ${changed.join(', ')}. Training uses the ` +
      'new ones, except the learning rates, betas and decays, which the optimizer and its schedule restored',
  )
}
