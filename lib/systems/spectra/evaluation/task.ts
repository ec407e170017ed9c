import { requireString } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { nearest } from '../../../base/words.js'
import { type Task, type TaskOptions, taskOf } from '../../../kit/task.js'
import { SPECTRA_SETTINGS, type SpectraPreset } from '../training/recipe.js'

/** The four tasks on which SPECTRA was fine-tuned and for which its authors publish data. */
export type SpectraTaskName = 'mosi' | 'mosei' | 'iemocap' | 'mintrec'

/** A task of a fine-tuned SPECTRA: one number per turn, or one of several classes. */
export interface SpectraTask extends Task<SpectraTaskKind> {
  /** The accuracy that the published early stopping monitors. */
  readonly accuracyMetric?: string
}

const SPECTRA_RECIPE = SPECTRA_SETTINGS.defaults

const KINDS = ['regression', 'classification'] as const
type SpectraTaskKind = (typeof KINDS)[number]

/** MOSI and MOSEI: sentiment in [-3, 3]. IEMOCAP: six emotions in dialogs. MIntRec: twenty intents, of which 0 to 10 are emotions. */
export const SPECTRA_TASKS: Readonly<Record<SpectraTaskName, SpectraTask & { readonly preset: SpectraPreset }>> = {
  mosi: {
    name: 'mosi',
    kind: 'regression',
    numLabels: 1,
    keyMetric: 'accA2Non0',
    accuracyMetric: 'accA7',
    preset: SPECTRA_RECIPE,
  },
  mosei: {
    name: 'mosei',
    kind: 'regression',
    numLabels: 1,
    keyMetric: 'accA2Non0',
    accuracyMetric: 'accA7',
    preset: SPECTRA_RECIPE,
  },
  iemocap: {
    name: 'iemocap',
    kind: 'classification',
    numLabels: 6,
    keyMetric: 'accuracy',
    accuracyMetric: 'accuracy',
    preset: { ...SPECTRA_RECIPE, historyAudio: true, turnIds: true },
  },
  mintrec: {
    name: 'mintrec',
    kind: 'classification',
    numLabels: 20,
    keyMetric: 'acc20',
    accuracyMetric: 'acc20',
    preset: SPECTRA_RECIPE,
  },
}

/** Options of your own task. */
export type SpectraTaskOptions = TaskOptions<SpectraTaskKind>

/** Return one of the four published tasks by name. @throws ConfigError naming the nearest name */
export function publishedSpectraTask(name: string): (typeof SPECTRA_TASKS)[SpectraTaskName] {
  requireString('publishedSpectraTask', 'name', name)
  if (isPublishedTask(name)) return SPECTRA_TASKS[name]
  const near = nearest(name, Object.keys(SPECTRA_TASKS))
  throw new ConfigError(
    `SPECTRA: expected one of the published tasks ${Object.keys(SPECTRA_TASKS).join(', ')}, got ${JSON.stringify(name)}${near ? `; did you mean ${near}?` : '.'} For your own task, set kind to regression or classification.`,
    { argument: 'task', near },
  )
}

export const isPublishedTask = (name: unknown): name is SpectraTaskName =>
  typeof name === 'string' && Object.hasOwn(SPECTRA_TASKS, name)

/** Validate your own task. Classes may be unknown (`numLabels` 0) until the data is read. */
export function spectraTask(options: SpectraTaskOptions): SpectraTask {
  const task = taskOf('A task of SPECTRA', options, KINDS)
  return task.kind === 'regression' ? task : { ...task, accuracyMetric: 'accuracy' }
}

/** Return the hyperparameters of a task. Your own tasks use those of the published tasks. */
export function spectraPreset(task: Pick<SpectraTask, 'name'>): SpectraPreset {
  requireForm('spectraPreset', 'task', task, { name: 'string' })
  return isPublishedTask(task.name) ? SPECTRA_TASKS[task.name].preset : SPECTRA_RECIPE
}
