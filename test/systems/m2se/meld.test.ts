import { existsSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { publishedWeights, setNumThreads } from '../../../lib/index.js'
import {
  type CauseScores,
  EMOVERSE_TASKS,
  EmoVerse,
  type EmoVerseInputs,
  type EmoVerseTask,
  emoverseData,
  inferEmoVerse,
  type LabelScores,
  type RobustTaskScores,
  type SwiftRecord,
  scoreEmoVerse,
  trainEmoVerse,
} from '../../../lib/systems/m2se/index.js'

const shared = process.env.VOXTORCH_DATA ?? fileURLToPath(new URL('../../../../shared/data', import.meta.url))
const name = 'smollm2-135m-instruct'
const [meld, ecf] = [join(shared, 'meld'), join(shared, 'ecf')]
const hasWeights = publishedWeights().some((one) => one.name === name && one.present)
const wanted = process.env.VOXTORCH_EMOVERSE_MELD === '1' && hasWeights && existsSync(meld) && existsSync(ecf)

/** Records of one task, drawn by the seed. */
async function only(
  task: EmoVerseTask,
  inputs: EmoVerseInputs,
  part: 'train' | 'test',
  most?: number,
): Promise<SwiftRecord[]> {
  const weights = Object.fromEntries(EMOVERSE_TASKS.map((one) => [one, one === task ? 1 : 0]))
  const caps = most === undefined ? {} : { caps: { [task]: most } }
  return [...(await emoverseData(inputs, { part, weights, ...caps })).records]
}

// Hours on two cores: VOXTORCH_EMOVERSE_OUTPUT names a folder in which a run that was ended goes on, VOXTORCH_EMOVERSE_RECORDS how
// many records each task is trained on.
it.skipIf(!wanted)(
  `${name} (VOXTORCH_EMOVERSE_MELD=1, ../shared/data/meld, ../shared/data/ecf): learns emotion, sentiment and causes from words alone`,
  { timeout: 0 },
  async () => {
    const home = process.env.VOXTORCH_EMOVERSE_OUTPUT ?? mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-meld-'))
    const records = Number(process.env.VOXTORCH_EMOVERSE_RECORDS ?? 4000)
    const tested =
      process.env.VOXTORCH_EMOVERSE_TESTED === undefined ? undefined : Number(process.env.VOXTORCH_EMOVERSE_TESTED)
    setNumThreads(Number(process.env.VOXTORCH_EMOVERSE_THREADS ?? 2))
    using model = await EmoVerse.fromPretrained(name, { media: 'ignore' })
    const recipe = {
      learningRate: 5e-4,
      batchSize: 8,
      accumulation: 1,
      epochs: 1,
      gradientCheckpointing: false,
      saveSteps: 25,
      validationShare: 0,
    }
    const causes = await only('ECPE', { ecf: join(ecf, 'Subtask_1_train.json') }, 'train', Math.ceil(records / 8))
    await trainEmoVerse(model, {
      outputDir: home,
      stages: [
        { data: await only('MSA', { meld }, 'train', records), recipe },
        { data: [...(await only('MER', { meld }, 'train', records)), ...causes], recipe },
      ],
    }) // biome-ignore format: one stage a line
    const scored = async (task: EmoVerseTask, inputs: EmoVerseInputs) => {
      const data = await only(task, inputs, 'test', tested)
      const { file } = await inferEmoVerse(model, { data, output: join(home, `${task}.jsonl`), maxNewTokens: 48 })
      const [found] = Object.values((await scoreEmoVerse(file)).tasks) as [RobustTaskScores]
      console.log(task, JSON.stringify(found))
      return found
    }
    const emotion = await scored('MER', { meld })
    const sentiment = await scored('MSA', { meld })
    const pairs = await scored('ECPE', { ecf: join(ecf, 'Subtask_2_test.json') })
    expect((emotion.scores as LabelScores).weightedF1).toBeGreaterThan(0.446)
    const [majority] = Object.values(sentiment.baselines)
    expect((sentiment.scores as LabelScores).accuracy).toBeGreaterThan((majority?.accuracy as number) + 0.1)
    expect((pairs.scores as CauseScores).f1).toBeGreaterThan(pairs.baselines.itself?.f1 as number)
  },
)
