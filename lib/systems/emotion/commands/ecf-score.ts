import { ConfigError, DataError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'

/** `voxtorch ecf-score`, also `voxtorch emotion ecf-score`. */
export const ecfScore = commandRule({
  name: 'ecf-score',
  summary: 'Score predictions of emotion causes as the official scorer of SemEval-2024 Task 3 does.',
  details: `  voxtorch ecf-score Subtask_2_pred.json --gold Subtask_2_test.json
  voxtorch ecf-score Subtask_1_pred.json --gold Subtask_1_test.json --output scores.txt
  voxtorch ecf-score DIR

DIR has the layout of the official scorer: Subtask_1_gold.json with Subtask_1_pred.json, the files of subtask 2, or both.`,
  files: 'PRED.json|DIR',
  options: {
    gold: { type: 'string', help: 'the gold file', placeholder: 'file' },
    subtask: { type: ['1', '2'], help: 'subtask of PRED.json; default: from its name' },
    output: { type: 'string', help: 'also write the scores to this file', placeholder: 'file' },
  },
  async run({ gold, subtask, output }, files) {
    const [path, more] = files
    if (path === undefined || more !== undefined) {
      throw new ConfigError(`ecf-score: expected one predictions file or one folder, got ${files.length} paths.`, {
        argument: 'files',
      })
    }
    const { statSync } = await import('node:fs')
    const { basename, join } = await import('node:path')
    const { ecfScoreLines, scoreEcf } = await import('../../../kit/emotion/ecf-score.js')
    const facts = statSync(path, { throwIfNoEntry: false })
    if (facts === undefined)
      throw new DataError(`${path}: expected a file or folder, got a path that does not exist. Check the path.`, {
        file: path,
      })
    const pairs: { subtask: 1 | 2; gold: string; predictions: string }[] = []
    if (facts.isDirectory()) {
      for (const one of [1, 2] as const) {
        const predictions = join(path, `Subtask_${one}_pred.json`)
        if (!statSync(predictions, { throwIfNoEntry: false })) continue
        pairs.push({ subtask: one, predictions, gold: gold ?? join(path, `Subtask_${one}_gold.json`) })
      }
      if (pairs.length === 0)
        throw new DataError(
          `${path}: expected Subtask_1_pred.json or Subtask_2_pred.json in the folder, got neither.`,
          {
            file: path,
          },
        )
    } else {
      const named = subtask ?? /Subtask_([12])/.exec(basename(path))?.[1]
      if (named === undefined)
        throw new ConfigError(
          `ecf-score: --subtask: expected 1 or 2, got no value and no subtask in the name of ${path}. Add --subtask 1 or 2.`,
          { argument: 'subtask' },
        )
      if (gold === undefined)
        throw new ConfigError('ecf-score: --gold: expected the gold file, got no value. Add --gold FILE.', {
          argument: 'gold',
        })
      pairs.push({ subtask: Number(named) as 1 | 2, gold, predictions: path })
    }
    const lines: string[] = []
    for (const pair of pairs) lines.push(...ecfScoreLines(await scoreEcf(pair)))
    console.log(lines.join('\n'))
    if (output !== undefined) {
      const { writeAtomicallySync } = await import('../../../base/atomic.js')
      writeAtomicallySync(output, DataError, `${lines.join('\n')}\n`)
    }
    return 0
  },
})
