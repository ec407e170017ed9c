/** Dialogs as two synthetic voices speak them, and clips of real voices: made once, and used by usdm-small.ts. */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as vt from 'voxtorch'

export interface SpeechSettings {
  /** espeak-ng's voice of each of the two speakers. */
  voices: [string, string]
  /** Words a minute. */
  speed: number
  /** The most words of a turn: what is trained on stays short. */
  words: number
  /** How many pairs of turns of DailyTalk's training part, of its validation part to watch, and of that to test on. */
  train: number
  valid: number
  test: number
  /** How many of the training part are learnt by heart, the shortest ones. */
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
export type SpokenFiles = Record<(typeof PARTS)[number], string>

const RATE = 16_000

/**
 * Writes `train.jsonl`, `valid.jsonl`, `test.jsonl` and `by-heart.jsonl`, dialogs of two turns each in the form that
 * `preprocessUsdmJsonl` reads, and the clips, which nobody recorded: espeak-ng speaks them. What is there already stays.
 */
export async function speakDialogs(
  dailytalk: string,
  out: string,
  settings: SpeechSettings,
): Promise<{ clips: number; hours: number; pairs: Record<string, number> }> {
  const random = new vt.Random(settings.seed)
  const learnt = random.shuffle(pairsOf(join(dailytalk, 'train_phone.txt'), settings.words)).slice(0, settings.train)
  const held = random.shuffle(pairsOf(join(dailytalk, 'val_phone.txt'), settings.words))
  const pairs: Record<(typeof PARTS)[number], Pair[]> = {
    train: learnt,
    valid: held.slice(0, settings.valid),
    test: held.slice(settings.valid, settings.valid + settings.test),
    'by-heart': shortest(learnt, settings.byHeart),
  }
  const clips = new Map<string, Spoken>()
  for (const { said } of Object.values(pairs).flat()) {
    for (const turn of said) {
      const clip = spokenBy(settings, turn)
      clips.set(clip.file, clip)
    }
  }
  const seconds = await speak([...clips.values()], join(out, 'clips'))
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

/** Turns that follow each other, of two speakers, each of a few words, of a file `id|speaker|{phones}|text|emotion`. */
function pairsOf(file: string, words: number): Pair[] {
  const dialogs = new Map<string, Map<number, Said>>()
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    if (line.trim() === '') continue
    const fields = line.split('|')
    const [turn = '', speaker = '', dialog = ''] = (fields[0] as string).split('_')
    const text = (fields.at(-2) as string).trim()
    const turns = dialogs.get(dialog) ?? new Map<number, Said>()
    dialogs.set(dialog, turns.set(Number(turn), { text, speaker: speaker === '1' ? 1 : 0 }))
  }
  const short = ({ text }: Said) => /^[a-z' ,.?!]+$/.test(text) && text.split(/\s+/).length <= words
  return [...dialogs].sort().flatMap(([dialog, turns]) =>
    [...turns.keys()]
      .sort((a, b) => a - b)
      .flatMap((at): Pair[] => {
        const [user, agent] = [turns.get(at)!, turns.get(at + 1)]
        if (!agent || user.speaker === agent.speaker || !short(user) || !short(agent)) return []
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

/** What demo/speak.js reads. */
interface Spoken {
  file: string
  text: string
  voice: string
  pitch: number
  speed: number
  range: number
}

function spokenBy({ voices, speed }: SpeechSettings, { text, speaker }: Said): Spoken {
  const clip = { text, voice: voices[speaker], pitch: 50, speed, range: 50 }
  return { file: `${createHash('sha256').update(JSON.stringify(clip)).digest('hex').slice(0, 20)}.wav`, ...clip }
}

/** Speaks what is not in the folder yet, in two worker threads, at 16 kHz; gives the seconds of all clips. */
async function speak(clips: readonly Spoken[], folder: string): Promise<number> {
  mkdirSync(folder, { recursive: true })
  const missing = clips.filter(({ file }) => !existsSync(join(folder, file)))
  if (missing.length > 0) {
    const speaker = new URL('./demo/speak.js', import.meta.url)
    const loader = new vt.DataLoader<{ file: string; wav: Uint8Array }>(speaker, { workers: 2, workerData: missing })
    using bar = new vt.ProgressBar({ total: missing.length, label: 'speak', unit: 'clips' })
    for await (const [spoken] of loader) {
      await vt.scope(async () => {
        const { samples } = await vt.readAudio(spoken!.wav, { sampleRate: RATE })
        await vt.writeWav(join(folder, spoken!.file), withoutSilence(samples.flatten(), RATE), { sampleRate: RATE })
      })
      bar.tick()
    }
  }
  let seconds = 0
  for (const { file } of clips) seconds += (await vt.clipSeconds(join(folder, file))) ?? 0
  return seconds
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
