import { describe, expect, it } from 'vitest'
import {
  ConfigError,
  DataError,
  type InternVLConversation,
  type InternVLPromptOptions,
  internVLPrompt,
  internVLTemplate,
  type Tokenizer,
} from '../../lib/index.js'
import { INTERNVL_SYSTEM } from '../../lib/models/internvl/prompt.js'

const SPECIAL = [
  '<s>',
  '<img>',
  '</img>',
  '<IMG_CONTEXT>',
  '<|im_start|>',
  '<|im_end|>',
  '<|system|>',
  '<|user|>',
  '<|assistant|>',
  '<|end|>',
]

/** A token for each letter and each special token, and a mark where a text was begun: what is made tokens together is seen. */
function letters(begins: boolean) {
  const idOf = (part: string) =>
    SPECIAL.includes(part) ? SPECIAL.indexOf(part) : 1000 + (part.codePointAt(0) as number)
  const pieces: string[] = []
  const tokenizer = {
    bosTokenId: 0,
    tokenToId: (token: string) => (SPECIAL.includes(token) ? SPECIAL.indexOf(token) : undefined),
    encode(text: string) {
      if (text === '') return { inputIds: begins ? [0] : [] }
      pieces.push(text)
      const parts = text.split(/(<[^<> ]*>)/).flatMap((part) => (SPECIAL.includes(part) ? [part] : [...part]))
      return { inputIds: parts.map(idOf) }
    },
  }
  return { tokenizer: tokenizer as unknown as Tokenizer, pieces }
}
const textOf = (ids: readonly number[]) =>
  ids.map((id) => (id < 1000 ? SPECIAL[id] : String.fromCodePoint(id - 1000))).join('')

function made(conversation: InternVLConversation, options: Partial<InternVLPromptOptions> = {}, begins = false) {
  const { tokenizer, pieces } = letters(begins)
  const prompt = internVLPrompt(tokenizer, conversation, { template: 'internlm2', tileTokens: 2, ...options })
  expect(prompt.labels.length).toBe(prompt.inputIds.length)
  prompt.labels.forEach((label, i) => {
    if (label !== -100) expect(label).toBe(prompt.inputIds[i])
  })
  const learnt: string[] = []
  prompt.labels.forEach((label, i) => {
    if (label === -100) return
    if (i === 0 || prompt.labels[i - 1] === -100) learnt.push('')
    learnt[learnt.length - 1] += textOf([label])
  })
  // The end of the text is asked for by itself, to be found in what is learnt.
  return { ...prompt, text: textOf(prompt.inputIds), learnt, pieces: pieces.slice(0, -1) }
}
const IMAGE = '<img><IMG_CONTEXT><IMG_CONTEXT></img>\n'

describe('turns', () => {
  it('are written as published, and answers are learnt with what ends them', () => {
    const one = made({ turns: [['Who?', 'Joey.']], system: 'S.' })
    expect(one.text).toBe(
      '<|im_start|>system\nS.<|im_end|><|im_start|>user\nWho?<|im_end|><|im_start|>assistant\nJoey.<|im_end|>',
    )
    expect(one.learnt).toEqual(['Joey.<|im_end|>'])
    expect(one.pieces).toEqual([one.text.slice(0, -'Joey.<|im_end|>'.length), 'Joey.<|im_end|>'])
    const phi3 = made({ turns: [['Who?', 'Joey.']], system: 'S.' }, { template: 'phi3' }, true)
    expect(phi3.text).toBe('<s><|system|>\nS.<|end|><|user|>\nWho?<|end|><|assistant|>\nJoey.<|end|>')
    expect(phi3.learnt).toEqual(['Joey.<|end|>'])
    expect(made({ turns: [['Who?', null]], system: null }).text).toBe(
      '<|im_start|>user\nWho?<|im_end|><|im_start|>assistant\n',
    )
    expect(made({ turns: [['Who?', null]], system: null }).learnt).toEqual([])
    expect(made({ turns: [['Who?', null]] }).text).toContain(`system\n${INTERNVL_SYSTEM}<|im_end|>`)
  })

  it('of a history are learnt too, with the ends that are made tokens with the next question', () => {
    const three = made({
      turns: [
        ['a', 'bc'],
        ['d', 'e'],
        ['f', 'g'],
      ],
      system: null,
    })
    expect(three.text).toBe(
      '<|im_start|>user\na<|im_end|><|im_start|>assistant\nbc<|im_end|><|im_start|>user\nd<|im_end|><|im_start|>assistant\n' +
        'e<|im_end|><|im_start|>user\nf<|im_end|><|im_start|>assistant\ng<|im_end|>',
    )
    expect(three.learnt).toEqual(['bc<|im_end|>', 'e<|im_end|>', 'g<|im_end|>'])
    expect(three.pieces.slice(1, 3)).toEqual(['bc', '<|im_end|><|im_start|>user\nd<|im_end|><|im_start|>assistant\n'])
    const asked = made({
      turns: [
        ['a', 'bc'],
        ['f', null],
      ],
      system: null,
    })
    expect(asked.text.endsWith('assistant\n')).toBe(true)
  })
})

describe('the template of InternVL 2.5 and 3', () => {
  const template = 'internvl2_5'
  it('has a line break after each end, which is no target', () => {
    const two = made(
      {
        turns: [
          ['a', 'bc'],
          ['d', 'e'],
        ],
        system: 'S.',
      },
      { template },
    )
    expect(two.text).toBe(
      '<|im_start|>system\nS.<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nbc<|im_end|>\n' +
        '<|im_start|>user\nd<|im_end|>\n<|im_start|>assistant\ne<|im_end|>',
    )
    expect(two.learnt).toEqual(['bc<|im_end|>', 'e<|im_end|>'])
    const asked = made({ turns: [['Who?', null]], system: null }, { template })
    expect(asked.text).toBe('<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n')
    expect(made({ turns: [['Who?', null]] }, { template }).text).toContain('system\n你是书生·万象，英文名是InternVL，')
  })

  it('adds nothing after an image, and a line break after a frame', () => {
    const { text } = made(
      { turns: [['<image>\nWho?<video>', null]], images: [1], videos: [2], system: null },
      { template },
    )
    const image = '<img><IMG_CONTEXT><IMG_CONTEXT></img>'
    expect(text).toBe(
      `<|im_start|>user\n${image}\nWho?Frame1: ${image}\nFrame2: ${image}\n<|im_end|>\n<|im_start|>assistant\n`,
    )
  })
})

describe('pictures', () => {
  it('stand at their markers, of so many tiles', () => {
    const { text, tiles, pieces, learnt } = made({
      turns: [['<image>Who <image>?', 'x']],
      images: [1, 3],
      system: null,
    })
    const three = `<img>${'<IMG_CONTEXT>'.repeat(6)}</img>\n`
    expect(text).toBe(`<|im_start|>user\n${IMAGE}Who ${three}?<|im_end|><|im_start|>assistant\nx<|im_end|>`)
    expect(tiles).toBe(4)
    expect(pieces).toEqual([
      '<|im_start|>user\n<img>',
      '</img>\nWho <img>',
      '</img>\n?<|im_end|><|im_start|>assistant\n',
      'x<|im_end|>',
    ])
    expect(learnt).toEqual(['x<|im_end|>'])
  })

  it('of a video are numbered', () => {
    const { text, tiles } = made({ turns: [['<video>Who?', null]], videos: [3], system: null })
    const frames = [1, 2, 3].map((frame) => `Frame${frame}: ${IMAGE}`).join('')
    expect(text).toBe(`<|im_start|>user\n${frames}Who?<|im_end|><|im_start|>assistant\n`)
    expect(tiles).toBe(3)
  })

  it('may stand in any turn', () => {
    const turns = [
      ['<image>a', 'b'],
      ['c<image>', null],
    ] as const
    const { text } = made({ turns, images: [1, 1], system: null })
    expect(text.split(IMAGE).length).toBe(3)
    // Without pictures the markers are words.
    expect(made({ turns: [['<image>a', null]], system: null }).text).toContain('user\n<image>a')
  })

  it('are refused where markers and pictures differ, with both numbers', () => {
    const refused = (conversation: object, message: RegExp, kind: new (...args: never[]) => Error = DataError) => {
      const make = () => made({ turns: [['<image>a', null]], ...conversation } as InternVLConversation)
      expect(make).toThrow(kind)
      expect(make).toThrow(message)
    }
    refused({ images: [1, 1] }, /expected 1 for 1 markers <image> in the questions, got 2/)
    refused(
      { turns: [['<image><image>', null]], images: [1] },
      /expected 2 for 2 markers <image> in the questions, got 1/,
    )
    refused({ videos: [8], turns: [['a', null]] }, /expected 0 for 0 markers <video> in the questions, got 1/)
    refused({ images: [1], turns: [['<image><IMG_CONTEXT>', null]] }, /<IMG_CONTEXT>/)
    refused(
      {
        turns: [
          ['a', null],
          ['b', 'c'],
        ],
      },
      /turn 1: expected an answer/,
    )
    refused({ images: [2 ** 22] }, /expected at most \d+ tokens of images and audio/)
    refused({ images: [0] }, /images/, ConfigError)
    refused({ turns: [] }, /turns/, ConfigError)
    refused({ turns: [['a']] }, /turns/, ConfigError)
    refused({ pictures: [1] }, /pictures/, ConfigError)
    refused({ system: 3 }, /system/, ConfigError)
    expect(() => made({ turns: [['a', null]] }, { template: 'vicuna' as never })).toThrow(ConfigError)
    expect(() => internVLPrompt(3 as never, { turns: [['a', null]] }, { template: 'phi3' })).toThrow(/Tokenizer/)
  })
})

it('knows templates by the names of published configurations', () => {
  expect(['Hermes-2', 'internlm2-chat', 'internvl2_5', 'phi3-chat', 'phi3'].map(internVLTemplate)).toEqual([
    'hermes2',
    'internlm2',
    'internvl2_5',
    'phi3',
    'phi3',
  ])
  for (const wrong of ['vicuna', 3, null, 'toString']) expect(() => internVLTemplate(wrong)).toThrow(ConfigError)
})
