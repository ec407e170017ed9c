import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it, vi } from 'vitest'
import { sftRule } from '../../lib/cli/sft.js'
import * as vt from '../../lib/index.js'
import { runCommand } from '../../lib/kit/command.js'
import { BadRecords } from '../../lib/kit/records.js'
import { examplesOf } from '../../lib/tuning/examples.js'
import { type SftRecord, type TrainSftOptions, trainSft } from '../../lib/tuning/index.js'
import { imageMedia } from '../../lib/tuning/media.js'
import { expectClose } from '../helpers.js'
import { byteTokenizer, TINY_SEEING } from '../systems/emoverse/tiny.js'

vt.setNumThreads(1)
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-sft-images-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

/** Write an image of one color. */
const writeImage = (name: string, width: number, height: number, value: number) =>
  writeFileSync(
    join(directory, name),
    Buffer.concat([Buffer.from(`P6 ${width} ${height} 255\n`), Buffer.alloc(3 * width * height, value)]),
  )
writeImage('dark.ppm', 28, 28, 20)
writeImage('wide.ppm', 84, 28, 230)
writeFileSync(join(directory, 'broken.ppm'), 'no image')

const MEDIA = ['<img>', '</img>', '<IMG_CONTEXT>']
const PHI3 = ['<|system|>', '<|user|>', '<|assistant|>', '<|end|>']
const image = (path?: string) => ({ type: 'image', ...(path && { image: path }) })
const text = (value: string) => ({ type: 'text', text: value })
const user = (...content: unknown[]) => ({ role: 'user', content })
const assistant = (content: string) => ({ role: 'assistant', content })
const two = {
  messages: [
    user(image('dark.ppm'), text('which?')),
    assistant('dark'),
    user(text('and '), image('wide.ppm'), image('dark.ppm')),
    assistant('wide'),
  ],
}
const plain = { messages: [user(text('no image')), assistant('none')] }
const file = join(directory, 'train.jsonl')
writeFileSync(file, [two, plain, two, plain].map((one) => JSON.stringify(one)).join('\n'))

const settings = { maxLength: 1024, truncationMode: 'keep_start', trainOn: 'assistant' } as const
const open = (template: string | null = 'internvl2_5') =>
  vt.InternVL.fromConfig(
    { ...TINY_SEEING, template, llmConfig: { ...TINY_SEEING.llmConfig, vocabSize: 264, initializerRange: 0.2 } },
    { seed: 1 },
  )
async function read(records: string | SftRecord[], template: string | null, tokenizer: vt.Tokenizer, changes = {}) {
  const media = imageMedia('read', open(template), tokenizer)
  const reader = { tokenizer, media, settings: { ...settings, ...changes } }
  return (await examplesOf(reader, records, new BadRecords('stop'), 'records')).examples
}
let runs = 0
const options = (more: Partial<TrainSftOptions> = {}): TrainSftOptions => ({
  ...{ outputDir: join(directory, `run${runs++}`), batchSize: 2, learningRate: 1e-2, epochs: 2, ...more },
  args: { reportTo: 'none', ...more.args },
})

it.each([
  ['internvl2_5', 'internvl2_5'],
  ['Hermes-2', 'hermes2'],
  ['internlm2-chat', 'internlm2'],
  ['phi3-chat', 'phi3'],
] as const)('records with the template %s have the ids and labels of internVLPrompt', async (name, template) => {
  const tokenizer = await byteTokenizer(MEDIA, name === 'phi3-chat' ? PHI3 : undefined)
  const { image_, line } = { image_: '<image>', line: name === 'internvl2_5' ? '\n' : '' }
  const ask = { template, tileTokens: 4 }
  for (const system of [undefined, 'Short.'] as const) {
    const start = system === undefined ? [] : [{ role: 'system', content: system }]
    const [example] = await read([{ messages: [...start, ...inFolder(two).messages] }], name, tokenizer)
    const turns = [
      [`${image_}${line}which?`, 'dark'],
      [`and ${image_}${line}${image_}${line}`, 'wide'],
    ] as const
    // Three tiles and a thumbnail, or one tile.
    const expected = vt.internVLPrompt(tokenizer, { turns, images: [1, 4, 1], ...(system && { system }) }, ask)
    expect(tokenizer.decode(example!.inputIds)).toBe(tokenizer.decode(expected.inputIds))
    expect([example!.inputIds, example!.labels]).toEqual([expected.inputIds, expected.labels])
  }
  // Images of a column, in the places of a text.
  const column = {
    messages: [{ role: 'user', content: '<image>\nwhich? <image>' }, assistant('dark')],
    images: [join(directory, 'dark.ppm'), join(directory, 'wide.ppm')],
  }
  const [example] = await read([column], name, tokenizer)
  const expected = vt.internVLPrompt(tokenizer, { turns: [['<image>\nwhich? <image>', 'dark']], images: [1, 4] }, ask)
  expect([example!.inputIds, example!.labels]).toEqual([expected.inputIds, expected.labels])
})

/** Return a record whose images are complete paths. */
const inFolder = (record: typeof two) => ({
  messages: record.messages.map((message) => ({
    ...message,
    content: Array.isArray(message.content)
      ? message.content.map((part) =>
          'image' in (part as object) ? image(join(directory, (part as { image: string }).image)) : part,
        )
      : message.content,
  })),
})

it('begins with the token that the tokenizer adds, and has no target at images of an answer', async () => {
  const tokenizer = await byteTokenizer([...MEDIA, '<s>'])
  const turns = [['which?', 'dark']] as const
  const record = { messages: [user(text('which?')), assistant('dark')] }
  const [example] = await read([record], 'Hermes-2', tokenizer)
  const expected = vt.internVLPrompt(tokenizer, { turns }, { template: 'hermes2', tileTokens: 4 })
  expect(expected.inputIds[0]).toBe(tokenizer.bosTokenId)
  expect([example!.inputIds, example!.labels]).toEqual([expected.inputIds, expected.labels])
  const path = join(directory, 'dark.ppm')
  const drawn = { messages: [user(text('draw')), { role: 'assistant', content: [image(path), text('here')] }] }
  const [answered] = await read([drawn], 'internvl2_5', tokenizer)
  expect(tokenizer.decode(answered!.labels.filter((id) => id >= 0))).toBe('\nhere<|im_end|>')
})

it('reads no tiles with dynamicImageSize false', async () => {
  const tokenizer = await byteTokenizer(MEDIA)
  const model = vt.InternVL.fromConfig({ ...TINY_SEEING, dynamicImageSize: false })
  const media = imageMedia('read', model, tokenizer)
  expect((await media.tokensOf(join(directory, 'wide.ppm'))).count).toBe(4)
  expect((await media.inputsOf([join(directory, 'wide.ppm')])).pixelValues!.shape).toEqual([1, 3, 28, 28])
  model.dispose()
})

it('a folder of the port uses the chat template of its tokenizer', async () => {
  const tokenizer = await byteTokenizer(MEDIA)
  tokenizer.chatTemplate = `{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{% if p.type == 'image' %}<IMG_CONTEXT>\n{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}`
  const [example] = await read([{ messages: inFolder(two).messages.slice(0, 2) }], null, tokenizer)
  expect(tokenizer.decode(example!.inputIds)).toBe(
    `<|im_start|>user\n<img>${'<IMG_CONTEXT>'.repeat(4)}</img>\nwhich?<|im_end|>\n<|im_start|>assistant\ndark<|im_end|>\n`,
  )
})

it('refuses records with images that cannot be used', async () => {
  const tokenizer = await byteTokenizer(MEDIA)
  const model = open()
  const bad: [record: object, reason: string, message: RegExp][] = [
    [
      { messages: [user(image(join(directory, 'no.ppm'))), assistant('a')] },
      'clips',
      /messages\[0\]\.content\[0\].*no\.ppm/,
    ],
    [{ messages: [user(image(join(directory, 'broken.ppm'))), assistant('a')] }, 'clips', /broken\.ppm/],
    [
      { messages: [user(text('a'), { type: 'image', image: vt.zeros([28, 28, 3]) }), assistant('a')] },
      'clips',
      /messages\[0\]\.content\[1\]: readImage: image: expected uint8/,
    ],
    [
      { messages: [user({ type: 'image', image: 5 }), assistant('a')] },
      'clips',
      /messages\[0\]\.content\[0\]: readImage: expected image to be a path/,
    ],
    [{ messages: [user(image()), assistant('a')] }, 'clips', /expected 1 images in image or images/],
    [
      { messages: [user({ type: 'audio', audio: 'a.wav' }), assistant('a')] },
      'invalid record',
      /'text' or 'image', got "audio"/,
    ],
    [{ ...plain, audio: 'a.wav' }, 'clips', /expected no audio for a model of image/],
    [
      { messages: [user(text('a <image> b')), assistant('a')] },
      'clips',
      /expected 1 images for 1 times <image>.*got 0/,
    ],
    [{ messages: [user(text('a <IMG_CONTEXT> b')), assistant('a')] }, 'clips', /expected 0 image tokens.*got 1/],
    [{ ...plain, images: [join(directory, 'dark.ppm'), join(directory, 'dark.ppm')] }, 'clips', /expected 0 images/],
    [{ ...plain, tools: [{ name: 'f' }] }, 'invalid record', /expected no tools/],
    [
      { messages: [user(text('a')), { role: 'assistant', content: null, tool_calls: [{ name: 'f' }] }] },
      'invalid record',
      /expected no tool_calls/,
    ],
    [{ messages: [{ role: 'user', content: null }, assistant('a')] }, 'invalid record', /expected content, got none/],
    [
      { prompt: 'a', completion: 'b', image: 'a.ppm' },
      'clips',
      /prompt: expected messages with a record that has image/,
    ],
  ]
  for (const [record, , message] of bad) {
    const refused = trainSft(model, [plain, record] as SftRecord[], options({ tokenizer }))
    await expect(refused).rejects.toThrow(message)
    await expect(refused).rejects.toThrow(vt.DataError)
  }
  const all = [plain, ...bad.map(([record]) => record)] as SftRecord[]
  const { badRecords } = await trainSft(model, all, options({ tokenizer, onBadRecord: 'skip', maxSteps: 1 }))
  expect(badRecords.count).toBe(bad.length)
  const long = inFolder(two)
  const few = options({ tokenizer, maxLength: 219, truncationMode: 'keep_start' })
  await expect(trainSft(model, [long], few)).rejects.toThrow(/all image tokens within maxLength 219/)
  await expect(trainSft(model, [plain], options({ tokenizer: await byteTokenizer() }))).rejects.toThrow(/<IMG_CONTEXT>/)
  model.dispose()
})

it('a packed batch with images has the loss of its records alone', async () => {
  const tokenizer = await byteTokenizer(MEDIA)
  const model = open()
  const media = imageMedia('test', model, tokenizer)
  const { examples } = await examplesOf({ tokenizer, media, settings }, file, new BadRecords('stop'), 'records')
  const [first, second] = examples as [(typeof examples)[0], (typeof examples)[0]]
  const count = [first, second].flatMap(({ labels }) => labels.filter((id) => id >= 0)).length
  let alone = 0
  for (const { inputIds, labels, clips } of [first, second]) {
    const inputs = clips.length > 0 ? await media.inputsOf(clips) : {}
    const { loss } = await model.forward({
      ...{ inputIds: vt.tensor([inputIds]), labels: vt.tensor([labels]), reduction: 'sum' },
      ...inputs,
    })
    alone += Number(loss!.item()) / count
  }
  const { inputIds, labels, sequenceLengths } = vt.packSequences(['inputIds', 'labels'])([first, second])
  const { loss } = await model.forward({ inputIds, labels, sequenceLengths, ...(await media.inputsOf(first.clips)) })
  expect(Number(loss!.item())).toBeCloseTo(alone, 5)
  model.dispose()
})

it('voxtorch sft trains an InternVL, by parts', async () => {
  const log = vi.spyOn(console, 'log').mockImplementation(() => {})
  const folder = join(directory, 'model')
  const model = open()
  await model.save(folder)
  ;(await byteTokenizer(MEDIA)).saveTo(folder)
  const at = (name: string) => join(directory, name)
  const sft = (words: string) =>
    runCommand('voxtorch sft', sftRule, `--model ${folder} --data ${file} --no-progress ${words}`.split(' '))
  try {
    expect(
      await sft(
        `--eval-data ${file} --metrics exactMatch --max-new-tokens 4 --max-steps 20 --learning-rate 1e-2 --lora-r 4 --merge --output ${at('cli')}`,
      ),
    ).toBe(0)
    const { valid, trainingLoss } = JSON.parse(log.mock.calls[0]?.[0] as string)
    expect(valid.loss).toBeLessThan(0.8 * trainingLoss)
    const base = await vt.InternVL.fromPretrained(folder)
    const peft = await vt.PeftModel.fromPretrained(base, at('cli/adapter'))
    const merged = await vt.InternVL.fromPretrained(at('cli/model'))
    const before = model.namedParameters().map(([name, one]) => [name, one] as const)
    const after = new Map(merged.namedParameters())
    const changed = before.filter(([name, one]) => !one.eq(after.get(name)!).all().item()).map(([name]) => name)
    expect(changed.some((name) => name.startsWith('vision_model.'))).toBe(false)
    expect(changed.some((name) => name.startsWith('mlp1.'))).toBe(true)
    expect(changed.some((name) => name.startsWith('language_model.'))).toBe(true)
    const inputs = { inputIds: vt.tensor([[5, 260, 260, 260, 260, 7]]), pixelValues: vt.randn([1, 3, 28, 28]) }
    const [one, other] = [await merged.forward(inputs), await peft.model.forward(inputs)]
    expectClose(one.lastHiddenState, other.lastHiddenState, 1e-4)
    expect(await sft(`--no-lora --train-encoder full --max-steps 1 --output ${at('whole')}`)).toBe(0)
    await vt.InternVL.fromPretrained(at('whole/model'))
    await expect(sft('--long-audio cut --max-steps 1')).rejects.toThrow(
      /^sft: --long-audio: expected it for an AudioLM/,
    )
    await expect(sft('--gguf Q8_0 --max-steps 1')).rejects.toThrow(/gguf: expected none for InternVL/)
  } finally {
    log.mockRestore()
  }
})
