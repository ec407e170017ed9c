// The chat page: sends media and a question to the server with all earlier turns, and shows the answer as it arrives.

import { apiKey, readModel, streamAnswer } from './api.js'
import { readAudio, recordedAudio, toBase64 } from './audio.js'
import { setUpCamera } from './camera.js'
import { clock, element, makeClip } from './clip.js'
import { partOf, readImage, readVideo } from './media.js'
import { makePlayer } from './player.js'
import { startRecording } from './recorder.js'
import { holdOrClick, setUpTalk, talkSettings } from './talk.js'
import { discard, itemOf, showAnswer, showUser } from './turns.js'
import { drawWave } from './wave.js'

const find = (id) => document.getElementById(id)
const prompt = find('prompt')
const IDEAS = ['What does the speaker say?', 'How does the speaker feel?', 'Describe what you hear.']

/** Earlier turns, sent with each request. */
let history = []
/** Audio clips, images and videos of the next message. */
let clips = []
let model
let answering
let recording
/** Input modalities of the model, and whether it answers with audio. */
let takesAudio = true
let takesText = true
let answersInSpeech = false
let takesImages = false
let takesVideos = false
/** Player of the latest answer. */
let player
/** Resolves when the current turn has been answered. */
let turnOver = Promise.resolve()

// Sending

function send(task) {
  turnOver = answerTurn(task)
  return turnOver
}

/** Send the message and show the answer. @param task one of the model's tasks, whose prompt replaces the text */
async function answerTurn(task) {
  const text = prompt.value.trim()
  if (answering || recording || (text === '' && clips.length === 0 && !task)) return
  if (!model && !(await connect())) return
  showError()
  const turn = { role: 'user', clips, text, task }
  const shown = [showUser(turn), showAnswer(model.id)]
  const answer = { role: 'assistant', text: '' }
  const audio = []
  let rate
  player?.stop()
  const answerPlayer = makePlayer(() => {
    shown[1].playing(answerPlayer.isPlaying)
    update()
  })
  player = answerPlayer
  const conversation = history
  clear()
  answering = new AbortController()
  update()
  say(takesImages ? 'Looking…' : takesAudio ? 'Listening…' : 'Thinking…')
  try {
    const messages = await Promise.all([...history, turn].map(message))
    const options = { ...settings(), ...(answersInSpeech && (await talkSettings())), ...extras(turn) }
    for await (const piece of streamAnswer({ model: model.id, messages, ...options }, answering.signal)) {
      if (piece.asked) turn.asked = piece.asked
      else if (piece.views) shown[1].views(piece.views)
      else if (piece.scores) shown[1].scores(piece.scores)
      else if (piece.heard) shown[0].add(piece.heard)
      else if (piece.text) shown[1].add((answer.text += piece.text) && piece.text)
      else if (piece.samples) {
        audio.push(piece.samples)
        rate = piece.sampleRate
        answerPlayer.push(piece.samples, rate)
      } else shown[1].end(piece.finish === 'length' ? 'The answer reached the maximum length.' : '')
    }
    if (audio.length > 0) shown[1].audio(audio, rate)
    history.push(turn, answer)
    say(`Answer: ${answer.text}`)
  } catch (error) {
    if (conversation !== history) say('New conversation')
    else if (error.name === 'AbortError') {
      shown[1].end('Stopped.')
      say('Stopped.')
      if (audio.length > 0) shown[1].audio(audio, rate)
      if (answer.text) history.push(turn, answer)
      else restoreTurn(turn, shown)
    } else {
      say('')
      restoreTurn(turn, shown)
      showFailure(error)
    }
  }
  answering = undefined
  update()
  if (takesText) prompt.focus()
}

/** Move a turn that was not answered back to the composer. */
function restoreTurn(turn, shown) {
  for (const { node } of shown) discard(node)
  clips = []
  for (const clip of turn.clips) addClip(clip)
  prompt.value = turn.text
  find('log').hidden = history.length === 0
  find('welcome').hidden = history.length > 0
}

/** Convert a turn to a message of the API. A turn with a task uses the text that the server returned as `asked`. */
async function message({ role, clips = [], text: written, asked }) {
  const text = asked ?? written
  if (clips.length === 0) return { role, content: text }
  const media = clips.map(async (clip) => {
    if (clip.kind !== undefined) return partOf(clip)
    clip.base64 ??= await toBase64(clip.blob)
    return { type: 'input_audio', input_audio: { data: clip.base64, format: clip.format } }
  })
  const parts = await Promise.all(media)
  return { role, content: text ? [...parts, { type: 'text', text }] : parts }
}

/** Return the request's fields for tasks and views. */
const extras = ({ task, clips: sent }) => ({
  ...(task && { task: task.id }),
  ...(model.extras?.includes('views') && sent.length > 0 && { views: true }),
})

function settings() {
  const [max_tokens, temperature, seed] = ['tokens', 'temperature', 'seed'].map((id) => find(id).valueAsNumber)
  const filled = Object.entries({ max_tokens, temperature, seed }).filter(([, value]) => !Number.isNaN(value))
  return Object.fromEntries(filled)
}

// The conversation

/** Abort the answer and stop its playback. */
function stopAnswer() {
  answering?.abort()
  player?.stop()
}

function startAnew() {
  stopAnswer()
  history = []
  for (const node of [...find('log').children]) discard(node)
  find('log').hidden = true
  find('welcome').hidden = false
  clear()
  showError()
  update()
  if (takesText) prompt.focus()
}

// Media

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
  if (takesImages && file.type.startsWith('image/')) return readImage(file)
  if (takesVideos && file.type.startsWith('video/')) return readVideo(file)
  if (!takesAudio)
    throw new Error(
      `${file.name}: ${model?.id ?? 'the model'} does not support files of type ${file.type || 'unknown'}.`,
    )
  const { samples, sent } = await readAudio(file, clipLimit())
  if (samples.length === 0) throw new Error(`${file.name} is empty.`)
  return makeClip(file.name, samples, sent)
}

/** Largest size of a clip in bytes: half of a request, as base64 with 4 bytes for 3. */
const clipLimit = () => (3 / 8) * (model?.limits.maxBodyBytes ?? 25e6)

let recorded = 0

const toggleRecording = () => (recording ? finishRecording() : beginRecording())

async function finishRecording() {
  const { stop } = recording
  recording = undefined
  update()
  const { samples, rate } = await recordedAudio(await stop(), clipLimit())
  if (samples.length > 0) addClip(makeClip(`Recording ${++recorded}`, samples, { rate }))
  say('Recording added')
  if (takesText) return prompt.focus()
  await turnOver
  await send()
}

let isBeginning = false

async function beginRecording() {
  if (isBeginning) return
  isBeginning = true
  showError()
  find('time').textContent = clock(0)
  // Recording interrupts a spoken answer.
  if (answersInSpeech) stopAnswer()
  find('record').disabled = !answersInSpeech
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
    const isDenied = error.name === 'NotAllowedError'
    showError(
      isDenied
        ? 'The browser does not allow this page to use the microphone. Allow it in the site settings.'
        : error.message,
    )
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
    takesAudio = model.input_modalities.includes('audio')
    takesText = model.input_modalities.includes('text')
    answersInSpeech = model.output_modalities?.includes('audio') === true
    takesImages = model.input_modalities.includes('image')
    takesVideos = model.input_modalities.includes('video')
    if (takesImages) showMediaInput()
    else if (!takesAudio) hideAudioInput()
    if (!takesText) hideTextInput()
    showTasks(model.tasks)
    if (answersInSpeech) setUpTalk(showError, clipLimit())
    find('tokens').max = model.limits.maxNewTokens
    find('tokens').placeholder = model.limits.defaultNewTokens
    document.title = `${model.id} · voxtorch`
    find('key-row').hidden = true
    showError()
  } catch (error) {
    find('model').textContent = 'not connected'
    showFailure(error)
  }
  update()
  return model !== undefined
}

/** Set up the page for a model without audio input. */
function hideAudioInput() {
  for (const id of ['record', 'choose']) find(id).hidden = true
  document.querySelector('.ideas').hidden = true
  find('welcome-title').textContent = 'Ask a question'
  find('welcome-text').textContent = 'Type a message below. You can ask follow-up questions.'
  find('privacy').textContent = 'Your messages are sent to this server only.'
  prompt.placeholder = 'Your question…'
}

/** Set up the page for a model with image input. */
function showMediaInput() {
  find('record').hidden = !takesAudio
  const types = [...(takesAudio ? ['audio/*'] : []), 'image/*', ...(takesVideos ? ['video/*'] : [])]
  find('files').accept = types.join(',')
  const kinds = ['an image', ...(takesVideos ? ['a video'] : []), ...(takesAudio ? ['audio'] : [])]
  const what = kinds.join(', ').replace(/, ([^,]*)$/, ' or $1')
  find('choose').textContent = `Add ${what}`
  find('drop').firstChild.textContent = `Drop ${what} here`
  find('welcome-title').textContent = 'Ask about a face'
  find('welcome-text').textContent =
    `Drop ${what}, or use the ${takesAudio ? 'camera and the microphone' : 'camera'}. Type the utterance and choose a task, or ask a question. You can ask follow-up questions.`
  find('privacy').textContent = 'Your media and messages are sent to this server only.'
  prompt.placeholder = 'Your question…'
  document.querySelector('.ideas').hidden = true
  setUpCamera({ add: addClip, showError, say })
}

/** Show a button for each of the model's tasks. */
function showTasks(tasks = []) {
  const buttons = tasks.map((task) => {
    const button = element('button', { type: 'button', textContent: task.title, title: task.hint })
    button.onclick = () => send(task)
    return button
  })
  find('tasks').replaceChildren(...buttons)
  find('tasks').hidden = buttons.length === 0
  if (buttons.length === 0) return
  prompt.placeholder = 'The utterance, or your question…'
  if (!takesImages)
    find('welcome-text').textContent =
      'Type the utterance and choose a task, or ask a question. You can ask follow-up questions.'
}

/** Set up the page for a model without text input. */
function hideTextInput() {
  document.body.classList.add('talks')
  find('prompt').hidden = true
  document.querySelector('.ideas').hidden = true
  find('welcome-title').textContent = 'Say something'
  find('welcome-text').textContent =
    'Hold the button while you speak, or click it before and after. You can interrupt the answer by speaking.'
  find('hint').firstChild.textContent = ''
  find('ask').textContent = 'Send'
  holdOrClick(find('record'), { isOn: () => recording !== undefined, begin: beginRecording, end: finishRecording })
}

/** Show an error, and the field for the API key if the server requires one. */
function showFailure(error) {
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

/** Announce a text to screen readers. language: screen reader */
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
  find('record-text').textContent = takesText ? (recording ? 'Finish' : 'Record') : recording ? 'Send' : 'Talk'
  find('record').disabled = Boolean(answering) && !answersInSpeech
  find('choose').disabled = Boolean(answering)
  for (const button of find('tasks').children) button.disabled = Boolean(answering) || Boolean(recording)
  find('camera').disabled = Boolean(answering)
  find('stop').hidden = !answering && !player?.isPlaying
  // Recordings are sent with the record button, so without text input this button is for files only.
  find('ask').hidden = Boolean(answering) || (!takesText && clips.length === 0)
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
find('stop').onclick = stopAnswer
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
  } else stopAnswer()
}

let inside = 0
const showDrop = (change) => {
  inside = Math.max(0, inside + change)
  find('drop').hidden = inside === 0
}
const hasFiles = (event) => (takesAudio || takesImages) && event.dataTransfer?.types.includes('Files')
document.ondragenter = (event) => hasFiles(event) && showDrop(1)
document.ondragleave = (event) => hasFiles(event) && showDrop(-1)
document.ondragover = (event) => event.preventDefault()
document.ondrop = (event) => {
  event.preventDefault()
  inside = 0
  showDrop(0)
  if (!answering && (takesAudio || takesImages)) addFiles([...(event.dataTransfer?.files ?? [])])
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
