import { shown } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { nearest } from '../../../base/words.js'
import type { Random } from '../../../data/random.js'
import { readJson } from '../../../files/json/json.js'
import { SPEECH_MARKER } from '../network/prompt.js'
import { countMarkers, SPEECH_BLOCK } from './prompt.js'

/** Prompts by task: a list to draw from (train_prompt.json), or one (test_prompt.json). */
export type SalmonnPromptTable = Readonly<Record<string, string | readonly string[]>>

/** Prompts of each task, from a table or one of the published JSON files. */
export class SalmonnPrompts {
  readonly #tasks: ReadonlyMap<string, readonly string[]>

  /** @throws DataError naming `file` and the task if a prompt is missing, is not a string, or lacks the marker */
  constructor(
    table: SalmonnPromptTable,
    readonly file = 'the prompts',
  ) {
    const bad = (what: string, task?: string) => new DataError(`${file}: ${what}`, { file, ...(task && { task }) })
    if (typeof table !== 'object' || table === null || Array.isArray(table)) {
      throw bad(`expected an object of tasks, each with a prompt or a list of prompts, got ${shown(table)}.`)
    }
    const tasks = Object.entries(table).map(([task, value]): [string, readonly string[]] => {
      const prompts: unknown[] = Array.isArray(value) ? value : [value]
      if (prompts.length === 0) throw bad(`expected at least one prompt of the task '${task}', got none.`, task)
      return [
        task,
        prompts.map((prompt, i) => {
          const name = Array.isArray(value) ? `prompt ${i + 1} of the task '${task}'` : `the prompt of '${task}'`
          if (typeof prompt !== 'string') throw bad(`expected ${name} to be a string, got ${shown(prompt)}.`, task)
          if (countMarkers(prompt) === 0) {
            throw bad(
              `expected ${SPEECH_MARKER} in ${name}, got none. Put ${SPEECH_BLOCK} where the speech belongs.`,
              task,
            )
          }
          return prompt
        }),
      ]
    })
    if (tasks.length === 0) throw bad('expected at least one task, got none.')
    this.#tasks = new Map(tasks)
  }

  /** Read a JSON file of `{ task: [prompt, …] }` or `{ task: prompt }`, UTF-8. */
  static async load(file: string): Promise<SalmonnPrompts> {
    return new SalmonnPrompts((await readJson(file)) as SalmonnPromptTable, file)
  }

  get tasks(): string[] {
    return [...this.#tasks.keys()]
  }

  /** @throws ConfigError for an unknown task, naming the nearest */
  of(task: string): readonly string[] {
    const found = this.#tasks.get(task)
    if (found) return found
    const near = nearest(task, this.#tasks.keys())
    throw new ConfigError(
      `${this.file}: expected one of the tasks ${this.tasks.join(', ')}, got '${task}'.${near ? ` Did you mean '${near}'?` : ''}`,
      { task },
    )
  }

  /** Return one of a task's prompts: the first, or with `random` a random one. */
  pick(task: string, random?: Random): string {
    const prompts = this.of(task)
    return prompts[random && prompts.length > 1 ? random.below(prompts.length) : 0] as string
  }
}
