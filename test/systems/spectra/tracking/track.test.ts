import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { ConfigError, DataError } from '../../../../lib/index.js'
import {
  type DstFeatures,
  type DstPrediction,
  decodeDst,
  dstPredictionRecords,
  dstScores,
  dstValueMatches,
  nextDstState,
  parseDstArguments,
  readDstExamples,
  readDstFeatures,
  trippyScores,
} from '../../../../lib/systems/spectra/index.js'
import { fixturePath } from '../../../helpers.js'
import { config, makeTokenizer } from './maker.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-dst-track-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const tokenizer = await makeTokenizer(join(folder, 'tokenizer'))
const options = { config, tokenizer }

const { slots, classTypes } = config
type Said = [slot: string, kind: string, detail?: number | [number, number]]

/** A prediction in which all slots but the named ones do nothing. */
function said(...list: Said[]): DstPrediction {
  const of = (slot: string) => list.find(([name]) => name === slot)
  const span = (slot: string) => (Array.isArray(of(slot)?.[2]) ? (of(slot)![2] as [number, number]) : [0, 0])
  return {
    classIds: slots.map((slot) => classTypes.indexOf((of(slot)?.[1] ?? 'none') as 'none')),
    startPositions: slots.map((slot) => span(slot)[0]!),
    endPositions: slots.map((slot) => span(slot)[1]!),
    referIds: slots.map((slot) => (typeof of(slot)?.[2] === 'number' ? (of(slot)![2] as number) : 0)),
  }
}

function turn(
  number: number,
  user: string,
  values: Record<string, string>,
  more: Partial<DstFeatures> = {},
): DstFeatures {
  const words = user.split(' ').flatMap((word) => tokenizer.encode(` ${word}`, { addSpecialTokens: false }).inputIds)
  const zeros = slots.map(() => 0)
  return {
    ...{ dialog: 'd', turn: number, inputIds: [0, ...words, 2, 2, 2, 2], userLength: words.length + 3 },
    ...{ userAudio: null, systemAudio: null, classIds: zeros, startPositions: zeros, endPositions: zeros },
    ...{ referIds: zeros, stateIds: zeros, informed: zeros, informs: {}, values, ...more },
  }
}

// The golden dialog: copy and dontcare, then what the system told and true, then a reference and another copy.
const golden = [
  turn(0, 'i want a hotel in the north please', { 'hotel-area': 'north', 'hotel-pricerange': 'dontcare' }),
  turn(
    1,
    'yes that one and the parking',
    {
      'hotel-area': 'north',
      'hotel-pricerange': 'dontcare',
      'hotel-name': 'acorn guest house',
      'hotel-parking': 'true',
    },
    { informs: { 'hotel-name': 'acorn guest house' } },
  ),
  turn(2, 'a taxi to the hotel for monday', {
    ...{
      'hotel-area': 'north',
      'hotel-pricerange': 'dontcare',
      'hotel-name': 'acorn guest house',
      'hotel-parking': 'true',
    },
    ...{ 'taxi-destination': 'acorn guest house', 'hotel-book day': 'monday' },
  }),
]
const right = [
  said(['hotel-area', 'copy_value', [7, 7]], ['hotel-pricerange', 'dontcare']),
  said(['hotel-name', 'inform'], ['hotel-parking', 'true']),
  said(['taxi-destination', 'refer', 3], ['hotel-book day', 'copy_value', [7, 7]]),
]

describe('tracking', () => {
  it('carries the state through three turns, and starts anew at turn 0', () => {
    const next = turn(0, 'cheap', { 'hotel-pricerange': 'cheap' }, { dialog: 'e' })
    const again = { ...next, dialog: 'd' }
    const cheap = said(['hotel-pricerange', 'copy_value', [1, 1]])
    const results = decodeDst([...golden, next, again], [...right, cheap, cheap], options)
    expect(results.map(({ state }) => state)).toEqual([...golden.map(({ values }) => values), next.values, next.values])
    const scores = dstScores(results, config)
    expect(scores).toMatchObject({
      jointGoalAccuracy: 1,
      jointGoalAccuracyWithoutProfile: 1,
      slotAccuracy: 1,
      turns: 5,
    })
    expect(trippyScores(results, config).jointGoalAccuracy).toBe(1)
  })

  it('dialogs may stand mixed in a batch', () => {
    const other = golden.map((features) => ({ ...features, dialog: 'o' }))
    const mixed = golden.flatMap((features, i) => [features, other[i]!])
    const results = decodeDst(
      mixed,
      right.flatMap((prediction) => [prediction, prediction]),
      options,
    )
    expect(results.map(({ state }) => state)).toEqual(mixed.map(({ values }) => values))
  })

  it('a wrong turn stays wrong until the value is given again', () => {
    const wrong = [said(['hotel-area', 'copy_value', [5, 5]], ['hotel-pricerange', 'dontcare']), right[1]!, right[2]!]
    const scores = dstScores(decodeDst(golden, wrong, options), config)
    expect(scores.jointGoalAccuracy).toBe(0)
    expect(scores.slotAccuracy).toBeCloseTo(15 / 18)
    expect(scores.perSlot['hotel-area']).toBe(0)
  })

  it('what makes no sense changes nothing; as published it does', () => {
    const before = { 'hotel-area': 'north', 'taxi-destination': 'ashley' }
    const state = (kind: Said, compat?: 'published') =>
      nextDstState(before, said(kind), golden[0]!, { ...options, ...(compat && { compat }) })
    const nonsense: Said[] = [
      ['hotel-area', 'copy_value', [5, 4]], // ends before it begins
      ['hotel-area', 'refer', 0], // refers to no slot
      ['hotel-area', 'inform'], // nobody told it
      ['hotel-area', 'refer', 3], // refers to a slot without a value
    ]
    for (const kind of nonsense) expect(state(kind), String(kind)).toEqual(before)
    expect(nonsense.map((kind) => state(kind, 'published')['hotel-area'])).toEqual(['', 'ashley', undefined, undefined])
    // Beyond the text is speech or padding; between the segments are separators.
    expect(state(['hotel-area', 'copy_value', [6, 40]])).toEqual(before)
    expect(state(['hotel-area', 'copy_value', [7, 9]])).toEqual(before)
    expect(state(['hotel-area', 'copy_value', [0, 1]])).toEqual(before)
    expect(() => nextDstState({}, { ...right[0]!, classIds: [9] }, golden[0]!, options)).toThrow(ConfigError)
  })
})

describe('measures', () => {
  it.each([
    ['north', 'north', true],
    ['downtown', 'centre', true],
    ['centre', 'downtown', false],
    ['north', 'centre', false],
    ['15 : 00', '15:00', true],
    ['9:05', '09:05', true],
    ['§§09 : 05 ', '9:05', true],
    ['015 : 00', '15:00', false], // eight characters
    ['15:00', '15:01', false],
    ['a:b', '15:00', false],
    ['none', '15:00', false],
  ])('%s for %s', (prediction, truth, expected) => {
    expect(dstValueMatches(config, prediction, truth)).toBe(expected)
  })

  it('the second number leaves profile slots out; without turns all are NaN', () => {
    const profiled = { ...config, slots: ['hotel-area', 'profile-name'] }
    const judged = [
      { state: { 'hotel-area': 'north' }, features: { values: { 'hotel-area': 'north', 'profile-name': 'x' } } },
    ]
    const scores = dstScores(judged, profiled)
    expect([scores.jointGoalAccuracy, scores.jointGoalAccuracyWithoutProfile, scores.slotAccuracy]).toEqual([0, 1, 0.5])
    expect(dstScores([], config).jointGoalAccuracy).toBeNaN()
  })

  it("TripPy's script counts classes, spans and references", () => {
    const labeled = golden.map((features, i) => ({
      ...features,
      classIds: [...right[i]!.classIds],
      startPositions: [...right[i]!.startPositions],
      endPositions: [...right[i]!.endPositions],
      referIds: [...right[i]!.referIds],
    }))
    const wrong = [
      right[0]!,
      said(['hotel-name', 'inform']),
      said(['taxi-destination', 'refer', 2], ['hotel-book day', 'copy_value', [6, 7]]),
    ]
    const { perSlot, perClass, jointGoalAccuracy } = trippyScores(decodeDst(labeled, wrong, options), config)
    expect(jointGoalAccuracy).toBeCloseTo(1 / 3)
    expect(perSlot['hotel-parking']).toEqual({ value: 1 / 3, class: 2 / 3, span: 1, refer: 1 })
    expect(perSlot['taxi-destination']).toEqual({ value: 2 / 3, class: 1, span: 1, refer: 0 })
    expect(perSlot['hotel-book day']).toEqual({ value: 2 / 3, class: 1, span: 0, refer: 1 })
    expect(perClass.true).toEqual({ precision: 1, recall: 0, f1: 0, accuracy: 17 / 18, support: 1 })
    expect(perClass.none).toMatchObject({ precision: 12 / 13, recall: 1, support: 12 })
  })

  it("writes the original's records", () => {
    const [record] = dstPredictionRecords(decodeDst(golden, right, options), config)
    expect(record).toMatchObject({
      guid: ['train', 'd', '0'],
      'class_prediction_hotel-area': 2,
      'start_prediction_hotel-area': 7,
      'slot_prediction_hotel-area': 'north',
      'slot_groundtruth_taxi-destination': 'none',
    })
  })
})

describe('published pickles', () => {
  const file = JSON.parse(readFileSync(fixturePath('spectra/dst-pickles.json'), 'utf8')) as Record<string, string>
  const small = { ...config, slots: file.slots as unknown as string[] }
  const pickled = (name: string) => {
    const path = join(folder, `${name}.pkl`)
    writeFileSync(path, Buffer.from(file[name]!, 'base64'))
    return path
  }

  it.each([2, 4, 5])('both stages, protocol %i', async (protocol) => {
    const [example] = await readDstExamples(pickled(`example-${protocol}`), { config: small, audio: '/data' })
    expect(example).toEqual({
      ...{ dialog: 'SNG0601', turn: 0 },
      userWords: ['a', 'cheap', 'room', 'for', 'monday', 'please'],
      systemWords: ['the', 'ashley', 'is', 'cheap'],
      userAudio: { path: '/data/audio/SNG06011-usr.npy' },
      systemAudio: { path: '/data/audio/SNG06011-sys.npy' },
      classes: { 'hotel-pricerange': 'inform', 'hotel-book day': 'copy_value' },
      spans: { 'hotel-pricerange': [1, 2], 'hotel-book day': [4, 5] },
      refers: {},
      informed: ['hotel-pricerange'],
      informs: { 'hotel-pricerange': 'cheap' },
      stateBefore: {},
      values: { 'hotel-pricerange': 'cheap', 'hotel-book day': 'monday' },
    })
    const [features] = await readDstFeatures(pickled(`feature-${protocol}`), { config: small })
    expect(features).toEqual({
      ...{ dialog: 'SNG0601', turn: 0, userLength: 9, userAudio: null, systemAudio: null },
      inputIds: [0, 11, 12, 13, 14, 15, 16, 2, 2, 21, 22, 23, 12, 2, 2],
      ...{ classIds: [6, 2, 0], startPositions: [2, 5, 0], endPositions: [2, 5, 0], referIds: [0, 0, 0] },
      ...{ stateIds: [0, 0, 0], informed: [1, 0, 0], informs: { 'hotel-pricerange': 'cheap' } },
      values: { 'hotel-pricerange': 'cheap', 'hotel-book day': 'monday' },
    })
  })

  it('names the record and field that are wrong', async () => {
    const other = { ...small, slots: [...small.slots, 'hotel-stars'] }
    await expect(readDstFeatures(pickled('feature-4'), { config: other })).rejects.toThrow(
      /record 0.*expected the slot 'hotel-stars', got none/,
    )
    await expect(readDstFeatures(pickled('example-4'), { config: small })).rejects.toThrow(DataError)
  })
})

describe('the command line', () => {
  it("takes the original's flags", () => {
    const line =
      '--model spectra --model_type roberta --data_dir ./data --model_dir /m --output_dir ./result ' +
      '--dataset_config ./data/c.json --per_gpu_train_batch_size 3 --accum 5 --lr 1e-5 --no_audio'
    expect(parseDstArguments(line.split(' '))).toMatchObject({
      ...{ mode: 'train', data: './data', modelDir: '/m', output: join('result', 'spectra'), config: './data/c.json' },
      noAudio: true,
      training: {
        perDeviceTrainBatchSize: 3,
        gradientAccumulationSteps: 5,
        learningRate: 1e-5,
        numTrainEpochs: 12,
        seed: 3407,
      },
    })
    expect(parseDstArguments(['--evaluate', '--ckpt', '200']).mode).toBe('evaluate')
    expect(parseDstArguments(['--track', '-']).mode).toBe('track')
  })

  it('says what is wrong', () => {
    expect(() => parseDstArguments(['--acum', '4'])).toThrow(/Did you mean --accum/)
    expect(() => parseDstArguments(['--lr', 'fast'])).toThrow(/expected a number of at least 0/)
    expect(() => parseDstArguments(['--lr', '1', '--learning-rate', '2'])).toThrow(/expected the option once/)
    expect(() => parseDstArguments(['--model_type', 'bert'])).toThrow(/--model_type: expected 'roberta'.* got 'bert'/)
    expect(() => parseDstArguments(['--evaluate=3'])).toThrow(ConfigError)
  })
})
