/** HTML of the page; lib/serve/page/app.js fills it. */
export const HTML: string = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>voxtorch</title>
<link rel="icon" href="/icon.svg"><link rel="stylesheet" href="/style.css"><script type="module" src="/app.js"></script></head>
<body>
<header><div class="bar"><h1>voxtorch</h1><span id="model" class="model">connecting…</span>
<button type="button" id="fresh" class="quiet" disabled>New conversation</button></div></header>
<main>
<section id="welcome" class="welcome" aria-labelledby="welcome-title">
<h2 id="welcome-title">Ask about audio</h2>
<p id="welcome-text">Record your voice or drop audio files here, then ask a question. You can ask follow-up questions and add more clips.</p>
<div class="ideas" role="group" aria-label="Example questions"></div>
</section>
<div id="log" class="log" role="log" aria-label="Conversation" tabindex="0" hidden></div>
</main>
<form id="composer" class="composer" aria-label="Your message" autocomplete="off" novalidate>
<div class="inner">
<p id="error" class="error" role="alert" hidden></p>
<div id="key-row" class="key" hidden><label for="key">API key</label><input id="key" type="password" spellcheck="false">
<button type="submit" class="quiet">Save key</button></div>
<ul id="clips" class="clips" aria-label="Clips to send" hidden></ul>
<div id="recording" class="recording" hidden><span class="dot" aria-hidden="true"></span>
<canvas id="level" aria-hidden="true"></canvas><output id="time" aria-label="Recorded time">0:00.0</output></div>
<div id="viewer" class="viewer" hidden><video id="finder" muted playsinline aria-label="Camera preview"></video>
<div class="shutters"><button type="button" id="shoot">Capture image</button>
<button type="button" id="video" aria-pressed="false" class="tool"><span class="mic" aria-hidden="true"></span><span id="video-text">Record a video</span><output id="video-time" aria-label="Recorded time"></output></button>
<button type="button" id="camera-off" class="quiet">Close the camera</button></div></div>
<div id="tasks" class="tasks" role="group" aria-label="Tasks" hidden></div>
<label for="prompt" class="unseen">Your question</label>
<textarea id="prompt" rows="2" placeholder="Ask about the audio…" aria-describedby="hint"></textarea>
<div class="tools">
<button type="button" id="record" class="tool" aria-pressed="false"><span class="mic" aria-hidden="true"></span><span id="record-text">Record</span></button>
<button type="button" id="camera" class="tool" aria-pressed="false" hidden>Camera</button>
<button type="button" id="choose" class="tool">Add audio</button>
<input id="files" type="file" accept="audio/*,.wav,.flac,.mp3,.ogg,.opus,.m4a,.aac" multiple hidden>
<details class="settings"><summary class="tool">Settings</summary><div class="panel">
<label>Maximum answer length, in tokens<input id="tokens" type="number" min="1" step="1"></label>
<label>Temperature<input id="temperature" type="number" min="0" max="2" step="0.1" placeholder="model default"></label>
<label>Seed<input id="seed" type="number" min="0" step="1" placeholder="random"></label>
<div id="speech" class="speech" hidden>
<label>Temperature<span class="value"></span><input id="slide-temperature" type="range" min="0" max="1" step="0.05" value="0"></label>
<label>Top-p<span class="value"></span><input id="slide-top-p" type="range" min="0" max="1" step="0.05" value="1"></label>
<label>Top-k<span class="value"></span><input id="slide-top-k" type="range" min="0" max="100" step="1" value="0"></label>
<label>Solver steps<span class="value"></span><input id="slide-steps" type="range" min="1" max="100" step="1" value="15"></label>
<ul id="voice-clip" class="clips" aria-label="Voice of the answers"></ul>
<button type="button" id="voice">Choose a voice…</button>
<input id="voice-file" type="file" accept="audio/*,.wav,.flac,.mp3,.ogg,.opus,.m4a,.aac" hidden></div></div></details>
<span class="gap"></span>
<button type="button" id="stop" class="stop" hidden>Stop</button>
<button type="submit" id="ask" class="ask">Ask</button></div>
<p id="hint" class="hint">Enter sends, Shift+Enter starts a new line. <span id="privacy">Your audio is sent to this server only.</span></p>
<p id="status" class="unseen" role="status"></p></div>
</form>
<div id="drop" class="drop" aria-hidden="true" hidden><p>Drop audio here</p></div>
<noscript>This page needs JavaScript.</noscript>
</body></html>
`

export const ICON: string = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#0f6b66"/>
<path d="M7 14v4M12 10v12M17 6v20M22 11v10M26 14v4" stroke="#fff" stroke-width="2.6" stroke-linecap="round"/></svg>`
