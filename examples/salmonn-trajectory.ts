/**
 * Trains SALMONN on dialogs of several clips, and tells how a speaker's emotion goes through one, by the library: `voxtorch
 * salmonn train`, `score` and `trajectory` do the same with options.
 *
 * `npx tsx examples/salmonn-trajectory.ts MODEL dialogs.json [OUTPUT]`: MODEL is a saved model or parts, the dialogs are what
 * `voxtorch salmonn convert` made.
 */
import { writeFileSync } from 'node:fs'
import * as vt from 'voxtorch'
import * as salmonn from 'voxtorch/salmonn'

const [from = 'model', dialogs = 'dialogs.json', outputDir = 'runs/salmonn'] = process.argv.slice(2)
const data = await salmonn.openSalmonnData({ train: [dialogs], validShare: 0.1, testShare: 0.1, emotionSuffix: 'en' })
vt.manualSeed(42)
using model = await vt.Salmonn.fromPretrained(from, { dtype: 'float32' })
const generation = { maxNewTokens: 60, numBeams: 1 }
const recipe = { epochs: 1, batchSize: 2, iterationsPerEpoch: null }
const results = await salmonn.trainSalmonn(model, { ...data, outputDir, stage: 2, recipe, score: { generation } })
console.log(results.test?.answers?.positionAccuracy)

const [dialog] = (await salmonn.readTrajectoryDialogs(dialogs)).dialogs
const told = await salmonn.predictTrajectory(model, dialog!, { generation, data: { emotionSuffix: 'en' } })
console.log(salmonn.trajectoryText(told))
writeFileSync(`${outputDir}/trajectory.svg`, salmonn.trajectorySvg(told, told.id))
