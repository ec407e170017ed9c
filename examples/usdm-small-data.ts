/** Dialogs as two synthetic voices speak them, and clips of real voices: made once, and used by usdm-small.ts. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as vt from 'voxtorch'
import { RATE, type Spoken, speakClips, spoken } from './demo/speech.js'

export interface SpeechSettings {
  /** espeak-ng's voice of each of the two speakers. */
  voices: [string, string]
  /** Words a minute. */
  speed: number
  /** The most words of a turn: what is trained on stays short. */
  words: number
  /** Vocabulary size: turns consist of the most frequent words. */
  vocabulary: number
  /** Number of phrases of longer turns for pre-training, from the same words; and of phrases of random words. */
  phrases: number
  drawn: number
  /** Number of pairs of turns for training (from DailyTalk's training set), validation and test (from its validation set). */
  train: number
  valid: number
  test: number
  /** Number of training pairs to memorize, the shortest ones. */
  byHeart: number
  seed: number
}

export interface VoicesSettings {
  /** The shortest and the longest clip. */
  seconds: [number, number]
  train: number
  test: number
  seed: number
}

/** A turn of DailyTalk. */
interface Said {
  text: string
  speaker: 0 | 1
}
/** Two turns that follow each other. */
interface Pair {
  id: string
  said: [user: Said, agent: Said]
}
const PARTS = ['train', 'valid', 'test', 'by-heart'] as const
/** Text of a pre-training clip: one word, consecutive words of a turn, random words, or a turn. */
export interface Phrase {
  kind: 'word' | 'phrase' | 'drawn' | 'turn'
  text: string
  wav: string
}

/**
 * Write `train.jsonl`, `valid.jsonl`, `test.jsonl` and `by-heart.jsonl`, two-turn dialogs in the form of `preprocessUsdmJsonl`;
 * `phrases.jsonl` with each word in both voices, phrases of the training set, random phrases, and short turns; and the synthetic
 * clips, by espeak-ng. Existing files are kept.
 */
export async function speakDialogs(
  dailytalk: string,
  out: string,
  settings: SpeechSettings,
): Promise<{ clips: number; hours: number; pairs: Record<string, number> }> {
  const random = new vt.Random(settings.seed)
  const dialogs = readDialogs(join(dailytalk, 'train_phone.txt'))
  const everyTurn = [...dialogs.values()].flatMap((said) => [...said.values()])
  const short = ({ text }: Said) => /^[a-z' ,.?!]+$/.test(text) && wordsOf(text).length <= settings.words
  const turns = everyTurn.filter(short)
  const vocabulary = mostSaid(turns, settings.vocabulary)
  const isEasy = (turn: Said) => short(turn) && wordsOf(turn.text).every((word) => vocabulary.has(word))
  const training = random.shuffle(pairsOf(dialogs, isEasy)).slice(0, settings.train)
  const held = random.shuffle(pairsOf(readDialogs(join(dailytalk, 'val_phone.txt')), isEasy))
  const pairs: Record<(typeof PARTS)[number], Pair[]> = {
    train: training,
    valid: held.slice(0, settings.valid),
    test: held.slice(settings.valid, settings.valid + settings.test),
    'by-heart': shortest(training, settings.byHeart),
  }
  const clips = new Map<string, Spoken>()
  const phrases = new Map<string, Phrase>()
  const say = (turn: Said, kind?: Phrase['kind']) => {
    const clip = spokenBy(settings, turn)
    clips.set(clip.file, clip)
    if (kind) phrases.set(clip.file, { kind, text: turn.text, wav: join('clips', clip.file) })
  }
  for (const { said } of Object.values(pairs).flat()) for (const turn of said) say(turn)
  for (const text of vocabulary) for (const speaker of [0, 1] as const) say({ text, speaker }, 'word')
  const cut = everyTurn
    .filter((turn) => !isEasy(turn))
    .flatMap((turn) => phrasesOf(turn, vocabulary, settings.words, random))
  for (const phrase of random.shuffle(cut).slice(0, settings.phrases)) say(phrase, 'phrase')
  for (let i = 0; i < settings.drawn; i += 1) say(drawnPhrase([...vocabulary], settings.words, random), 'drawn')
  for (const turn of turns) if (isEasy(turn) && wordsOf(turn.text).length > 1) say(turn, 'turn')
  await vt.writeJsonl(join(out, 'phrases.jsonl'), [...phrases.values()])
  const folder = join(out, 'clips')
  await speakClips([...clips.values()], folder, (samples) => withoutSilence(samples, RATE))
  let seconds = 0
  for (const file of clips.keys()) seconds += (await vt.clipSeconds(join(folder, file))) ?? 0
  for (const part of PARTS) {
    const lines = pairs[part].flatMap(({ id, said }) =>
      said.map((turn, i) => ({
        ...{ dialog: id, turn: i, speaker: String(turn.speaker), text: turn.text },
        wav: join('clips', spokenBy(settings, turn).file),
      })),
    )
    await vt.writeJsonl(join(out, `${part}.jsonl`), lines)
  }
  const counts = Object.fromEntries(PARTS.map((part) => [part, pairs[part].length]))
  return { clips: clips.size, hours: seconds / 3600, pairs: counts }
}

/** Dialogs by their names, of a file of lines `id|speaker|{phones}|text|emotion`: turns by their numbers. */
function readDialogs(file: string): Map<string, Map<number, Said>> {
  const dialogs = new Map<string, Map<number, Said>>()
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    if (line.trim() === '') continue
    const fields = line.split('|')
    const [turn = '', speaker = '', dialog = ''] = (fields[0] as string).split('_')
    const text = (fields.at(-2) as string).trim()
    const turns = dialogs.get(dialog) ?? new Map<number, Said>()
    dialogs.set(dialog, turns.set(Number(turn), { text, speaker: speaker === '1' ? 1 : 0 }))
  }
  return dialogs
}

const wordsOf = (text: string) =>
  text
    .replace(/[,.?!]/g, ' ')
    .split(/\s+/)
    .filter(Boolean)

/** So many of the words that are said most often. */
function mostSaid(turns: readonly Said[], count: number): Set<string> {
  const said = new Map<string, number>()
  for (const { text } of turns) for (const word of wordsOf(text)) said.set(word, (said.get(word) ?? 0) + 1)
  const order = [...said].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))
  return new Set(order.slice(0, count).map(([word]) => word))
}

/** Words of a turn that follow each other without a stop, two at least and so many at most, and are all of the vocabulary. */
function phrasesOf({ text, speaker }: Said, vocabulary: ReadonlySet<string>, most: number, random: vt.Random): Said[] {
  const phrases: Said[] = []
  let words: string[] = []
  let length = 0
  const end = () => {
    if (words.length > 1) phrases.push({ text: words.join(' '), speaker })
    words = []
    length = 2 + random.below(most - 1)
  }
  end()
  for (const part of text.split(/[^a-z' ]+/)) {
    for (const word of wordsOf(part)) {
      if (!vocabulary.has(word) || words.length === length) end()
      if (vocabulary.has(word)) words.push(word)
    }
    end()
  }
  return phrases
}

/** Return words in random order, which a model cannot guess without the audio. */
function drawnPhrase(vocabulary: readonly string[], most: number, random: vt.Random): Said {
  const words = Array.from({ length: 2 + random.below(most - 1) }, () => vocabulary[random.below(vocabulary.length)])
  return { text: words.join(' '), speaker: random.below(2) === 0 ? 0 : 1 }
}

/** Turns that follow each other, of two speakers, both of which are fit. */
function pairsOf(dialogs: ReadonlyMap<string, ReadonlyMap<number, Said>>, isFit: (turn: Said) => boolean): Pair[] {
  return [...dialogs].sort().flatMap(([dialog, turns]) =>
    [...turns.keys()]
      .sort((a, b) => a - b)
      .flatMap((at): Pair[] => {
        const [user, agent] = [turns.get(at)!, turns.get(at + 1)]
        if (!agent || user.speaker === agent.speaker || !isFit(user) || !isFit(agent)) return []
        return [{ id: `${dialog}-${at}`, said: [user, agent] }]
      }),
  )
}

/** Those with the fewest letters, of two words a turn at least, none of which asks what another asks in the same voice: that could have two answers. */
function shortest(pairs: readonly Pair[], count: number): Pair[] {
  const length = ({ said }: Pair) => said[0].text.length + said[1].text.length
  const asked = new Set<string>()
  return [...pairs]
    .sort((a, b) => length(a) - length(b) || (a.id < b.id ? -1 : 1))
    .filter(({ said }) => said.every(({ text }) => text.includes(' ')))
    .filter(({ said: [{ text, speaker }] }) => {
      const question = `${speaker} ${text.replace(/[^a-z ]/g, '')}`
      return !asked.has(question) && asked.add(question)
    })
    .slice(0, count)
}

function spokenBy({ voices, speed }: SpeechSettings, { text, speaker }: Said): Spoken {
  return spoken({ text, voice: voices[speaker], pitch: 50, speed, range: 50 })
}

/** Both ends without what is below a hundredth of the loudest, but for 40 ms. */
function withoutSilence(samples: vt.Tensor, rate: number): vt.Tensor {
  const wave = samples.dataSync() as Float32Array
  const loudest = wave.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  const isHeard = (value: number) => Math.abs(value) > loudest / 100
  const margin = Math.round(0.04 * rate)
  const from = Math.max(0, wave.findIndex(isHeard) - margin)
  let last = wave.length - 1
  while (last > 0 && !isHeard(wave[last]!)) last -= 1
  const to = Math.min(wave.length, last + margin)
  return samples.narrow(0, from, Math.max(1, to - from))
}

const PACKAGES = ['fillets-ng-data-cs', 'fillets-ng-data-nl']
const SOUNDS = 'usr/share/games/fillets-ng/sound'

/**
 * Writes clips of the two fish of Fish Fillets, Czech and Dutch actors, into `real/train` and `real/test` at 22.05 kHz. Where the
 * cache has no recordings, Debian's packages are fetched to it.
 */
export async function realVoices(
  cache: string,
  out: string,
  settings: VoicesSettings,
): Promise<{ train: number; test: number; hours: number }> {
  const root = join(cache, SOUNDS)
  if (!existsSync(root)) fetchPackages(cache)
  const found = readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((path) => /[\\/](cs|nl)[\\/][^\\/]*-[mv]-[^\\/]*\.(ogg|wav)$/.test(path))
    .sort()
  const order = new vt.Random(settings.seed, 3).shuffle(found)
  const [least, most] = settings.seconds
  const rate = 22_050
  for (const part of ['train', 'test']) mkdirSync(join(out, 'real', part), { recursive: true })
  let [kept, seconds] = [0, 0]
  for (const path of order) {
    const part = kept < settings.test ? 'test' : 'train'
    if (kept === settings.test + settings.train) break
    await vt.scope(async () => {
      // Some of them are a header and nothing else.
      const read = await vt.readAudio(join(root, path), { sampleRate: rate }).catch(() => undefined)
      if (!read) return
      const { samples } = read
      const wave = samples.ndim === 1 ? samples : samples.reshape([-1, samples.size(-1)]).mean([0])
      const own = withoutSilence(wave, rate)
      const length = own.size(0) / rate
      if (length < least || length > most) return
      const file = join(out, 'real', part, `${path.replace(/\.\w+$/, '').replace(/[\\/]/g, '-')}.wav`)
      if (!existsSync(file)) await vt.writeWav(file, own, { sampleRate: rate })
      kept += 1
      seconds += length
    })
  }
  return { train: kept - settings.test, test: settings.test, hours: seconds / 3600 }
}

function fetchPackages(cache: string): void {
  mkdirSync(cache, { recursive: true })
  const run = (command: string, args: string[]) => {
    const { status, stderr, error } = spawnSync(command, args, { cwd: cache, encoding: 'utf8' })
    if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? stderr}`)
  }
  run('apt-get', ['download', ...PACKAGES])
  for (const file of readdirSync(cache).filter((name) => name.endsWith('.deb'))) run('dpkg', ['-x', file, '.'])
}
