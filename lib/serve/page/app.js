// The page: clips and a question go to the server with all earlier turns, and the answer is shown as it comes.

import { apiKey, readModel, streamAnswer } from './api.js'
import { setUpCamera } from './camera.js'
import { clock, element, makeClip } from './clip.js'
import { partOf, readFilm, readPicture } from './picture.js'
import { makePlayer } from './player.js'
import { startRecording } from './recorder.js'
import { readSound, recordedSound, toBase64 } from './sound.js'
import { holdOrClick, setUpTalk, talkSettings } from './talk.js'
import { discard, itemOf, showAnswer, showUser } from './turns.js'
import { drawWave } from './wave.js'

const find = (id) => document.getElementById(id)
const prompt = find('prompt')
const IDEAS = ['What is said?', 'How does the speaker feel?', 'Describe what you hear.']

/** What is sent each time: turns that were answered. */
let history = []
/** What is about to be sent. */
let clips = []
let model
let answering
let recording
/** Whether the model takes audio, takes words, and answers in sound. */
let hears = true
let reads = true
let speaks = false
/** Whether it takes pictures, and films. */
let sees = false
let watches = false
/** What plays the latest answer. */
let player
/** Ends with the turn that is being answered. */
let turnOver = Promise.resolve()

// Asking

function send(task) {
  turnOver = answerTurn(task)
  return turnOver
}

/** @param task one of the model's, which has words of its own */
async function answerTurn(task) {
  const text = prompt.value.trim()
  if (answering || recording || (text === '' && clips.length === 0 && !task)) return
  if (!model && !(await connect())) return
  showError()
  const turn = { role: 'user', clips, text, task }
  const shown = [showUser(turn), showAnswer(model.id)]
  const answer = { role: 'assistant', text: '' }
  const sounds = []
  let rate
  player?.stop()
  const own = makePlayer(() => {
    shown[1].playing(own.isPlaying)
    update()
  })
  player = own
  const conversation = history
  clear()
  answering = new AbortController()
  update()
  say(sees ? 'Looking…' : hears ? 'Listening…' : 'Thinking…')
  try {
    const messages = await Promise.all([...history, turn].map(message))
    const wishes = { ...settings(), ...(speaks && (await talkSettings())), ...extras(turn) }
    for await (const piece of streamAnswer({ model: model.id, messages, ...wishes }, answering.signal)) {
      if (piece.asked) turn.asked = piece.asked
      else if (piece.views) shown[1].views(piece.views)
      else if (piece.scores) shown[1].scores(piece.scores)
      else if (piece.heard) shown[0].add(piece.heard)
      else if (piece.text) shown[1].add((answer.text += piece.text) && piece.text)
      else if (piece.samples) {
        sounds.push(piece.samples)
        rate = piece.sampleRate
        own.push(piece.samples, rate)
      } else shown[1].end(piece.finish === 'length' ? 'The answer reached its longest length.' : '')
    }
    if (sounds.length > 0) shown[1].sound(sounds, rate)
    history.push(turn, answer)
    say(`Answer: ${answer.text}`)
  } catch (error) {
    if (conversation !== history) say('New conversation')
    else if (error.name === 'AbortError') {
      shown[1].end('Stopped.')
      say('Stopped.')
      if (sounds.length > 0) shown[1].sound(sounds, rate)
      if (answer.text) history.push(turn, answer)
      else giveBack(turn, shown)
    } else {
      say('')
      giveBack(turn, shown)
      refused(error)
    }
  }
  answering = undefined
  update()
  if (reads) prompt.focus()
}

/** A turn that was not answered goes back to where it was written. */
function giveBack(turn, shown) {
  for (const { node } of shown) discard(node)
  clips = []
  for (const clip of turn.clips) addClip(clip)
  prompt.value = turn.text
  find('log').hidden = history.length === 0
  find('welcome').hidden = history.length > 0
}

/** A turn as the server is told it; one that a task was asked in has the task's words from then on. */
async function message({ role, clips = [], text: written, asked }) {
  const text = asked ?? written
  if (clips.length === 0) return { role, content: text }
  const sounds = clips.map(async (clip) => {
    if (clip.kind !== undefined) return partOf(clip)
    clip.base64 ??= await toBase64(clip.blob)
    return { type: 'input_audio', input_audio: { data: clip.base64, format: clip.format } }
  })
  const parts = await Promise.all(sounds)
  return { role, content: text ? [...parts, { type: 'text', text }] : parts }
}

/** What is wanted beside the answer. */
const extras = ({ task, clips: sent }) => ({
  ...(task && { task: task.id }),
  ...(model.extras?.includes('views') && sent.length > 0 && { views: true }),
})

function settings() {
  const [max_tokens, temperature, seed] = ['tokens', 'temperature', 'seed'].map((id) => find(id).valueAsNumber)
  const given = Object.entries({ max_tokens, temperature, seed }).filter(([, value]) => !Number.isNaN(value))
  return Object.fromEntries(given)
}

// The conversation

/** Ends the answer, in words and in sound. */
function hush() {
  answering?.abort()
  player?.stop()
}

function startAnew() {
  hush()
  history = []
  for (const node of [...find('log').children]) discard(node)
  find('log').hidden = true
  find('welcome').hidden = false
  clear()
  showError()
  update()
  if (reads) prompt.focus()
}

// Clips

function addClip(clip) {
  clips.push(clip)
  const remove = () => {
    clips = clips.filter((other) => other !== clip)
    update()
    say(`${clip.name} removed`)
    prompt.focus()
  }
  find('clips').append(itemOf(clip, remove))
  update()
}

async function addFiles(files) {
  showError()
  for (const file of files) {
    try {
      addClip(await readFile(file))
      say(`${file.name} added`)
    } catch (error) {
      showError(error.message)
    }
  }
  prompt.focus()
}

async function readFile(file) {
  if (sees && file.type.startsWith('image/')) return readPicture(file)
  if (watches && file.type.startsWith('video/')) return readFilm(file)
  if (!hears) throw new Error(`${file.name} is nothing that ${model?.id ?? 'the model'} takes.`)
  const { samples, sent } = await readSound(file, roomForClip())
  if (samples.length === 0) throw new Error(`${file.name} is empty.`)
  return makeClip(file.name, samples, sent)
}

/** Bytes of a clip at its own rate: half of a request, where four stand for three. */
const roomForClip = () => (3 / 8) * (model?.limits.maxBodyBytes ?? 25e6)

let recorded = 0

const toggleRecording = () => (recording ? finishRecording() : beginRecording())

async function finishRecording() {
  const { stop } = recording
  recording = undefined
  update()
  const { samples, rate } = await recordedSound(await stop(), roomForClip())
  if (samples.length > 0) addClip(makeClip(`Recording ${++recorded}`, samples, { rate }))
  say('Recording added')
  if (reads) return prompt.focus()
  await turnOver
  await send()
}

let isBeginning = false

async function beginRecording() {
  if (isBeginning) return
  isBeginning = true
  showError()
  find('time').textContent = clock(0)
  // Who speaks is listened to.
  if (speaks) hush()
  find('record').disabled = !speaks
  try {
    const most = model?.limits.maxAudioSeconds ?? 600
    const levels = []
    recording = await startRecording((part, seconds) => {
      levels.push(part.reduce((most, value) => Math.max(most, Math.abs(value)), 0))
      find('time').textContent = clock(seconds)
      drawWave(
        find('level'),
        Float32Array.from({ length: 120 }, (_, i) => levels[levels.length - 120 + i] ?? 0),
        0,
        1,
      )
      if (seconds >= most && recording) toggleRecording()
    })
    say('Recording')
  } catch (error) {
    const refused = error.name === 'NotAllowedError'
    showError(refused ? 'The browser does not allow this page to use the microphone.' : error.message)
  }
  find('record').disabled = false
  isBeginning = false
  update()
}

// The rest of the page

async function connect() {
  try {
    model = await readModel()
    find('model').textContent = model.id
    hears = model.input_modalities.includes('audio')
    reads = model.input_modalities.includes('text')
    speaks = model.output_modalities?.includes('audio') === true
    sees = model.input_modalities.includes('image')
    watches = model.input_modalities.includes('video')
    if (sees) askAboutPictures()
    else if (!hears) askInWords()
    if (!reads) askInSpeech()
    showTasks(model.tasks)
    if (speaks) setUpTalk(showError, roomForClip())
    find('tokens').max = model.limits.maxNewTokens
    find('tokens').placeholder = model.limits.defaultNewTokens
    document.title = `${model.id} · voxtorch`
    find('key-row').hidden = true
    showError()
  } catch (error) {
    find('model').textContent = 'not connected'
    refused(error)
  }
  update()
  return model !== undefined
}

/** Without what is there for audio. */
function askInWords() {
  for (const id of ['record', 'choose']) find(id).hidden = true
  document.querySelector('.ideas').hidden = true
  find('welcome-title').textContent = 'Ask something'
  find('welcome-text').textContent = 'Write below. You can go on asking.'
  find('privacy').textContent = 'What you write goes to this server only.'
  prompt.placeholder = 'Your question…'
}

/** With what is there for pictures, in place of what is there for audio alone. */
function askAboutPictures() {
  find('record').hidden = !hears
  const types = [...(hears ? ['audio/*'] : []), 'image/*', ...(watches ? ['video/*'] : [])]
  find('files').accept = types.join(',')
  const kinds = ['photo', ...(watches ? ['film'] : []), ...(hears ? ['voice'] : [])]
  const either = (words) => words.join(', ').replace(/, ([^,]*)$/, ' or $1')
  const what = either(kinds.map((kind) => `a ${kind}`))
  find('choose').textContent = `Add a ${either(kinds)}`
  find('drop').firstChild.textContent = `Drop ${what} here`
  find('welcome-title').textContent = 'Ask about a face'
  find('welcome-text').textContent =
    `Drop ${what}, or use the ${hears ? 'camera and the microphone' : 'camera'}. Write what is said in it, then choose a task; or just ask. You can go on asking.`
  find('privacy').textContent = `Pictures${hears ? ', voices' : ''} and words go to this server only.`
  prompt.placeholder = 'Your question…'
  document.querySelector('.ideas').hidden = true
  setUpCamera({ add: addClip, showError, say })
}

/** What the model was taught to be asked, a button each. */
function showTasks(tasks = []) {
  const buttons = tasks.map((task) => {
    const button = element('button', { type: 'button', textContent: task.title, title: task.hint })
    button.onclick = () => send(task)
    return button
  })
  find('tasks').replaceChildren(...buttons)
  find('tasks').hidden = buttons.length === 0
  if (buttons.length === 0) return
  prompt.placeholder = 'What is said, or your question…'
  if (!sees)
    find('welcome-text').textContent = 'Write what is said, then choose a task; or just ask. You can go on asking.'
}

/** Without what is there for words. */
function askInSpeech() {
  document.body.classList.add('talks')
  find('prompt').hidden = true
  document.querySelector('.ideas').hidden = true
  find('welcome-title').textContent = 'Say something'
  find('welcome-text').textContent =
    'Hold the button while you speak, or click it before and after. You can go on, and interrupt.'
  find('hint').firstChild.textContent = ''
  find('ask').textContent = 'Send'
  holdOrClick(find('record'), { isOn: () => recording !== undefined, begin: beginRecording, end: finishRecording })
}

function refused(error) {
  if (error.status === 401) {
    find('key-row').hidden = false
    find('key').focus()
  }
  showError(error.message)
}

function showError(text = '') {
  find('error').textContent = text
  find('error').hidden = text === ''
}

/** For those who cannot see it. */
function say(text) {
  find('status').textContent = text
}

function clear() {
  for (const item of [...find('clips').children]) item.discard()
  clips = []
  prompt.value = ''
}

function update() {
  find('clips').hidden = clips.length === 0
  find('recording').hidden = !recording
  find('record').ariaPressed = String(Boolean(recording))
  find('record-text').textContent = reads ? (recording ? 'Finish' : 'Record') : recording ? 'Send' : 'Talk'
  find('record').disabled = Boolean(answering) && !speaks
  find('choose').disabled = Boolean(answering)
  for (const button of find('tasks').children) button.disabled = Boolean(answering) || Boolean(recording)
  find('camera').disabled = Boolean(answering)
  find('stop').hidden = !answering && !player?.isPlaying
  // Who talks sends with the same button; this one is for files alone.
  find('ask').hidden = Boolean(answering) || (!reads && clips.length === 0)
  find('ask').disabled = Boolean(recording) || (prompt.value.trim() === '' && clips.length === 0)
  find('fresh').disabled = history.length === 0 && !answering
}

find('composer').onsubmit = (event) => {
  event.preventDefault()
  const key = find('key').value.trim()
  if (find('key-row').hidden || key === '') return void send()
  apiKey.set(key)
  find('key').value = ''
  connect()
}
prompt.onkeydown = (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
  event.preventDefault()
  send()
}
prompt.oninput = update
find('stop').onclick = hush
find('fresh').onclick = startAnew
find('record').onclick = toggleRecording
find('choose').onclick = () => find('files').click()
find('files').onchange = async () => {
  const files = [...find('files').files]
  find('files').value = ''
  await addFiles(files)
}
const panel = document.querySelector('.settings')
document.onclick = ({ target }) => {
  if (!panel.contains(target)) panel.open = false
}
document.onkeydown = (event) => {
  if (event.key !== 'Escape') return
  if (panel.open) {
    panel.open = false
    panel.firstElementChild.focus()
  } else hush()
}

let inside = 0
const showDrop = (change) => {
  inside = Math.max(0, inside + change)
  find('drop').hidden = inside === 0
}
const hasFiles = (event) => (hears || sees) && event.dataTransfer?.types.includes('Files')
document.ondragenter = (event) => hasFiles(event) && showDrop(1)
document.ondragleave = (event) => hasFiles(event) && showDrop(-1)
document.ondragover = (event) => event.preventDefault()
document.ondrop = (event) => {
  event.preventDefault()
  inside = 0
  showDrop(0)
  if (!answering && (hears || sees)) addFiles([...(event.dataTransfer?.files ?? [])])
}

for (const idea of IDEAS) {
  const button = element('button', { type: 'button', textContent: idea })
  button.onclick = () => {
    prompt.value = idea
    update()
    prompt.focus()
  }
  document.querySelector('.ideas').append(button)
}
update()
connect()
